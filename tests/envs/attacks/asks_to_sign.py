"""The signer is asked, from here, from a thread without Python frames, and through C."""

import _thread
import functools
import sys
import time

RESULT = ("contextrl.test", "tests/test_tiny.py::test_add", "call", "passed")
list(map(functools.partial(sys.audit), *zip(RESULT, strict=True)))
_thread.start_new_thread(sys.audit, RESULT)
time.sleep(0.05)
