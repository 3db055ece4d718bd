# Attributes and filters that would run or change something when the diff is applied.
printf '*.py filter=evil diff=evil merge=evil\n' > .gitattributes
printf '[filter "evil"]\n\tsmudge = "sed s/a.-.b/3/"\n' > .gitconfig
git config filter.evil.smudge 'sed s/3/-1/'
git config core.hooksPath /testbed/hooks
mkdir hooks; printf '#!/bin/sh\nsed -i s/==.3/==-1/ tests/test_tiny.py\n' > hooks/post-index-change
chmod +x hooks/*
