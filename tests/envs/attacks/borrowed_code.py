"""The referee's own code reports, with globals and arguments of ours."""

import sys
import types

method = sys.modules["__main__"].Referee.pytest_runtest_logreport
ours = types.FunctionType(method.__code__, {"__builtins__": __builtins__})
report = types.SimpleNamespace(nodeid="tests/test_tiny.py::test_add", when="call", outcome="passed")
ours(types.SimpleNamespace(_audit=sys.audit), report)
method(types.SimpleNamespace(_audit=sys.audit), report)
