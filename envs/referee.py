"""Runs inside the sandbox: pytest, with every result signed where the tested code cannot.

Standard library and pytest only: the file is sent into a sandbox and started there as `python
referee.py LOG WORKDIR`, with the plan as its standard input. The plan holds a key; this process has
read it before any code of the repository runs, makes its memory unreadable to other processes, and
leaves the key in one place: an audit hook (`referee_hooks.py`). The interpreter offers Python code
no way to remove such a hook or to get hold of it, and it runs on `sys.audit`, so it sees who
called. It signs a result only if every function on the stack is pytest's own. `evidence` checks the
log; docs/sandboxes.md says what this holds against and what it does not.

Syntax stays with Python 3.7: images bring their own. Without audit hooks (before 3.8) results are
still signed, by a function that a determined program could find.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import sys
import types
from typing import Any

DECIDING_HOOKS = (
    "pytest_pycollect_makeitem",
    "pytest_generate_tests",
    "pytest_itemcollected",
    "pytest_collection_modifyitems",
    "pytest_collection_finish",
    "pytest_runtestloop",
    "pytest_runtest_protocol",
    "pytest_runtest_call",
    "pytest_pyfunc_call",
    "pytest_runtest_makereport",
    "pytest_runtest_logreport",
)


class Referee:
    """The pytest plugin: reports each phase of each test, and runs the canaries."""

    def __init__(self, audit: Any, canaries: list[str]) -> None:
        self._audit = audit
        self._canaries = canaries
        self._sabotaged: Any = None

    def pytest_cmdline_main(self, config: Any) -> None:
        # Workers of xdist would send results that the tested code can write.
        if getattr(config.option, "numprocesses", None):
            config.option.numprocesses = None
            config.option.tx, config.option.dist = [], "no"

    def pytest_load_initial_conftests(self, early_config: Any) -> None:
        # Installed plugins are loaded, the repository's own files not yet.
        for plugin, _ in early_config.pluginmanager.list_plugin_distinfo():
            top = getattr(plugin, "__name__", "").split(".")[0]
            for name, module in list(sys.modules.items()):
                if top and name.split(".")[0] == top:
                    self._audit("contextrl.trust", module)

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            marked = any(True for _ in item.iter_markers("xfail"))
            marked |= bool(getattr(function_of(item), "__unittest_expecting_failure__", False))
            self._audit("contextrl.collected", item.nodeid, function_of(item), marked)

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> None:
        """A chosen test runs once more with a body that fails: whoever passes it is lying."""
        from _pytest.runner import runtestprotocol

        if not hasattr(item, "obj") or not any(names(item, test) for test in self._canaries):
            return
        self._sabotaged = item
        kept = item.obj
        # Up to, and without, the item itself, which is set up anew for its real run.
        reports = runtestprotocol(item, log=False, nextitem=item.parent)
        self._sabotaged = None
        item.obj = kept
        passed = not any(report.outcome in ("failed", "skipped") for report in reports)
        self._audit("contextrl.canary", item.nodeid, "passed" if passed else "failed")

    def pytest_runtest_call(self, item: Any) -> Any:  # a wrapper, made one in `main`
        if item is self._sabotaged:
            self._sabotage(item)
        else:
            self._audit("contextrl.call", item.nodeid, function_of(item), vars(item))
        yield
        # At once, before what the test left patched can undo itself; fixtures may still patch
        # builtins here, and pytest's own functions never.
        self._audit("contextrl.scan", "runner")

    def _sabotage(self, item: Any) -> None:

        def fail(*_: Any, **__: Any) -> None:
            raise AssertionError("assert 3 == 4")

        item.obj = fail
        if getattr(item, "_testcase", None) is not None:  # before pytest 8.2
            setattr(item._testcase, item.name, fail)

    def pytest_runtest_logreport(self, report: Any) -> None:
        # Exact types: an object with an __eq__ of its own would run code on top of this method.
        nodeid, when, outcome = report.nodeid, report.when, report.outcome
        if type(nodeid) is not str or type(when) is not str or type(outcome) is not str:
            return
        if outcome == "skipped" and hasattr(report, "wasxfail"):
            self._audit("contextrl.xfailed", nodeid)
        else:
            self._audit("contextrl.test", nodeid, when, outcome)
        if when == "teardown":
            self._audit("contextrl.scan", "all")

    def pytest_sessionfinish(self, session: Any) -> None:
        self._audit("contextrl.scan", "all")
        for name in DECIDING_HOOKS:
            for hook in getattr(session.config.pluginmanager.hook, name).get_hookimpls():
                code = getattr(hook.function, "__func__", hook.function).__code__
                self._audit("contextrl.hook", name, code, str(code.co_filename))


def function_of(item: Any) -> Any:
    """A plain function, whatever it is bound to: methods are bound anew for each run."""
    function = getattr(item, "obj", None)
    return function.__func__ if type(function) is types.MethodType else function


def names(item: Any, test: str) -> bool:
    """Whether a task's test id means this item; see `outcomes.outcomes` for the two odd kinds."""
    cut = "[" in test and not test.endswith("]")
    return (
        item.nodeid == test
        or (cut and item.nodeid.startswith(test))
        or ("::" not in test and item.name == test)
    )


def hide_memory() -> None:
    """Other processes, those of tests included, cannot read or trace this one."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    except (ImportError, OSError, AttributeError):
        return
    for name in [name for name in sys.modules if name.split(".")[0] in ("ctypes", "_ctypes")]:
        del sys.modules[name]


def may_xfail(plan: dict[str, Any]) -> bool:
    """Whether the listed files or a conftest above them mention expected failures at all."""
    folders = {os.path.dirname(file) for file in plan["files"]}
    for folder in list(folders):
        while folder:
            folder = os.path.dirname(folder)
            folders.add(folder)
    for file in [*plan["files"], *(os.path.join(folder, "conftest.py") for folder in folders)]:
        if os.path.isfile(file):
            with open(file, "rb") as stream:
                text = stream.read()
            if b"xfail" in text or b"expectedFailure" in text:
                return True
    return False


def main() -> int:
    with open(0, encoding="utf-8", closefd=False) as stream:  # freed when read, as sys.stdin is not
        plan = json.load(stream)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    hide_memory()
    gc.disable()  # an import makes much and drops nothing
    from referee_hooks import make_refuser, make_signer  # type: ignore[import-not-found]
    from referee_source import written_tests  # type: ignore[import-not-found]

    # As the `pytest` command has it; and nothing of the repository until the hooks are in place.
    path, workdir = sys.path[1:], sys.argv[2]
    sys.path[:] = [entry for entry in path if not entry.startswith(workdir)]
    import pytest

    for name in sys.modules["_pytest.config"].default_plugins:
        importlib.import_module("_pytest." + name)
    importlib.import_module("unittest.case")
    gc.freeze()  # nor need each collection look through the modules of pytest again
    gc.enable()
    arguments = [*plan["options"], f"--rootdir={workdir}", *plan["files"]]
    if plan["plugins"] and importlib.util.find_spec("pytest_cov") is not None:
        arguments.insert(0, "--no-cov")  # it needs sys.settrace, and grading needs no coverage
    written = written_tests(plan["files"], workdir, "--assert=plain" in plan["options"])
    signer = make_signer(bytes.fromhex(plan.pop("key")), log, may_xfail(plan), written)
    if hasattr(sys, "addaudithook"):
        sys.addaudithook(signer)
        sys.addaudithook(make_refuser())
        del signer
        audit = sys.audit
    else:

        def audit(event: str, *args: Any) -> None:
            signer(event, args)

    pytest.hookimpl(hookwrapper=True, tryfirst=True)(Referee.pytest_runtest_call)
    sys.path[:] = path
    sys.argv[:] = ["pytest", *arguments]
    code = int(pytest.main(arguments, plugins=[Referee(audit, plan["canaries"])]))
    audit("contextrl.end", str(code))
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    # Nothing that tests left behind, at exit or in threads, gets a turn.
    os._exit(main())
