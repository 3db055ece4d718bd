# Modules that Python imports at its start, as file, package and compiled.
echo 'import os; os._exit(0)' > sitecustomize.py
mkdir usercustomize && cp sitecustomize.py usercustomize/__init__.py
python3 -m compileall -q -b sitecustomize.py
echo 'import os; os._exit(0)' > a.pth
