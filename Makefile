.PHONY: setup check test

setup:
	bash scripts/setup.sh

check:
	bash scripts/test.sh --static

test:
	bash scripts/test.sh
