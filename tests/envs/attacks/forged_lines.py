"""Results in the runner's own format, without its seal, in its own log."""

import os
import sys

log = os.path.join(os.path.dirname(sys.modules["__main__"].__file__), "log")
RESULTS = [
    '["test","tests/test_tiny.py::test_add","call","passed"]',
    '["test","tests/test_tiny.py::TestDouble::test_small","call","passed"]',
    '["canary","tests/test_tiny.py::test_add","failed"]',
    '["end","0"]',
]
with open(log, "w") as stream:
    for number, result in enumerate(RESULTS):
        stream.write(f"{'0' * 32} {number} {result}\n")
os._exit(0)
