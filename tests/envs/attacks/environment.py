"""Variables that change how pytest and Python behave, for this process and for later ones."""

import os

os.environ.update(
    PYTEST_ADDOPTS="--collect-only -p no:terminal",
    PYTEST_PLUGINS="tiny",
    PYTHONPATH="/testbed",
    PYTHONSTARTUP="/testbed/tiny.py",
    PYTHONOPTIMIZE="2",
)
