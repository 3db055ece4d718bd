"""Runs inside the sandbox: the audit hooks that `referee.py` leaves the results' key in.

Standard library only; see `referee.py` for the idea and docs/sandboxes.md for its limits. Both
hooks are called with every audit event of the process, on top of whatever code caused it.
"""

from __future__ import annotations

import os
import sys
import types
from typing import Any

# What would let Python code find a hook, read its memory or run on top of it: refused by exception.
REFUSED = (
    "sys.settrace",
    "sys.setprofile",
    "sys.addaudithook",
    "sys._current_frames",
    "sys._current_exceptions",
    "gc.get_objects",
    "gc.get_referrers",
)
# Whose functions must stay as they were, because they decide what a test's result is.
DECIDES = (
    "_pytest.runner",
    "_pytest.python",
    "_pytest.reports",
    "_pytest.unittest",
    "_pytest.skipping",
    "_pytest.outcomes",
    "_pytest.main",
    "_pytest._code.code",
    "unittest.case",
    "pluggy._manager",
    "pluggy._hooks",
    "pluggy._callers",
    "pluggy._result",
    "pluggy.hooks",
    "pluggy.callers",
    "pluggy.manager",
)
TRUSTED = ("_pytest", "pluggy", "pytest", "referee_hooks")


def functions_in(module: types.ModuleType) -> list[types.FunctionType]:
    """The functions that a module defines, methods and properties included."""
    found: list[types.FunctionType] = []
    for value in list(vars(module).values()):
        members = [value]
        if isinstance(value, type) and value.__module__ == module.__name__:
            members = list(vars(value).values())
        for member in members:
            if isinstance(member, (staticmethod, classmethod)):
                member = member.__func__
            elif isinstance(member, property):
                member = member.fget
            while isinstance(member, types.FunctionType):
                found.append(member)
                member = vars(member).get("__wrapped__")
    return found


def codes_in(code: types.CodeType) -> list[types.CodeType]:
    nested = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [code, *(inner for const in nested for inner in codes_in(const))]


def make_signer(
    key: bytes, log: int, xfail_exists: bool, written: dict[str, list[types.CodeType]]
) -> Any:
    """An audit hook that writes signed lines to the file descriptor `log`.

    Nothing here may run code of others while it is on the stack, nor raise, for either would show
    its frame: only exact builtin types are touched, by builtins that are bound now.
    """
    import builtins
    from _json import encode_basestring_ascii as quote
    from hashlib import blake2b

    base = vars(builtins)
    mac = blake2b(key=key, digest_size=16)
    del key
    write, getpid, getframe, pid = os.write, os.getpid, sys._getframe, os.getpid()
    kind_of, text, nothing, ident, size, yes = type, str, None, id, len, True
    function_kind = types.FunctionType
    known_kinds = {"test": 3, "canary": 2, "end": 1}  # and how many strings they sign
    trusted: dict[int, tuple[Any, Any]] = {}  # id of code -> the code, its globals
    watched: list[tuple[Any, str, Any]] = []  # namespace, name, value
    collected: dict[str, tuple[Any, bool]] = {}  # node id -> function, marked as failing
    count = [0]

    def trust(module: types.ModuleType) -> None:
        for function in functions_in(module):
            for code in codes_in(function.__code__):
                trusted[id(code)] = (code, function.__globals__)

    def watch(module: types.ModuleType) -> None:
        places: list[Any] = [vars(module)]
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                places.append(value.__dict__)
        kinds = (types.FunctionType, staticmethod, classmethod, property, type)
        for place in places:
            watched.extend((place, n, v) for n, v in list(place.items()) if isinstance(v, kinds))

    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in TRUSTED or name in DECIDES or name == "__main__":
            trust(module)
        if name in DECIDES:
            watch(module)
    main = vars(sys.modules["__main__"])
    body = sys._getframe(2).f_code
    trusted[id(body)] = (body, main)
    watched += [(base, name, value) for name, value in base.items() if name != "_"]

    def stranger(frame: Any) -> str:
        """The first function on the stack that is not the runner's; empty if there is none."""
        if frame is nothing or frame.f_globals is not main:
            return "a caller that is not the referee"
        below = frame
        while frame is not nothing:
            code = frame.f_code
            entry = trusted.get(ident(code))
            if entry is nothing or entry[1] is not frame.f_globals:
                file, name = code.co_filename, code.co_name
                known = kind_of(file) is text and kind_of(name) is text
                return file[-60:] + ":" + name if known else "unknown"
            below, frame = frame, frame.f_back
        return "" if below.f_code is body else "another thread"

    def sign(*fields: str) -> None:
        line = f"{count[0]} [{','.join(fields)}]"
        count[0] += 1
        seal = mac.copy()
        seal.update(line.encode())
        write(log, f"{seal.hexdigest()} {line}\n".encode())

    def altered(why: str) -> None:
        sign('"altered"', quote(why))

    def as_written(nodeid: str, function: Any) -> bool:
        """Whether the file itself has this function there, as far as the file can tell."""
        codes = written.get(nodeid.partition("[")[0])
        if codes is nothing:
            return True
        return kind_of(function) is function_kind and function.__code__ in codes

    def signer(event: str, args: tuple[Any, ...]) -> None:
        if event[:10] != "contextrl." or getpid() != pid:
            return
        kind, number = event[10:], size(args)
        who = stranger(getframe(0).f_back)
        if who:
            altered("results were reported by " + who)
        elif kind == "trust":
            trust(args[0])
        elif kind == "scan":
            for place, name, value in watched:
                if place.get(name) is not value and (place is not base or args[0] == "all"):
                    altered(name + " was replaced")
                    break
        elif number == 0 or kind_of(args[0]) is not text:
            altered("a result has no name")
        elif kind == "collected":
            collected[args[0]] = (args[1], args[2] is yes and xfail_exists)
            if not as_written(args[0], args[1]):
                altered(args[0] + " is not what its file says")
        elif kind == "call":
            function, _ = collected.get(args[0], (nothing, False))
            same = args[1] is function and as_written(args[0], function)
            if not same or "runtest" in args[2]:
                altered("the test function of " + args[0] + " was replaced")
        elif kind == "hook":
            if ident(args[1]) not in trusted and args[2][-11:] != "conftest.py":
                altered(args[0] + " was added by " + args[2])
        elif kind == "xfailed":
            # A test that the code under test declared an expected failure did not pass.
            marked = collected.get(args[0], (nothing, False))[1]
            sign('"test"', quote(args[0]), '"call"', '"passed"' if marked else '"failed"')
        elif kind in known_kinds and number == known_kinds[kind]:
            fields = [quote(value) for value in args if kind_of(value) is text]
            if size(fields) == number:
                sign(quote(kind), *fields)

    return signer


def make_refuser() -> Any:
    """An audit hook that raises; its frame shows, so it knows nothing that others may not."""
    error, message, text = RuntimeError, "%s is refused while tests are graded", str
    refused, kind_of, ident = frozenset(REFUSED), type, id
    fixed = frozenset(
        id(function)
        for name, module in list(sys.modules.items())
        if name in DECIDES or name == "__main__"
        for function in functions_in(module)
    )

    def refuser(event: str, args: tuple[Any, ...]) -> None:
        if event in refused:
            raise error(message % event)
        if event == "object.__setattr__":
            if args[1] == "__code__" and ident(args[0]) in fixed:
                raise error(message % "changing the test runner")
        elif event == "open":
            path = args[0]
            if kind_of(path) is text and path[-3:] == "mem" and (path == "mem" or path[-4] == "/"):
                raise error(message % "reading a process's memory")

    return refuser
