"""Runs inside the sandbox: what the listed test files say, before any code of the repository runs.

A module that is imported can put another in the place of the one that imports it, with tests of its
own under the right names. So the test functions that pytest collects are compared with those that
their file compiles to. That is known where the source leaves no room for anything else: functions
without decorators, or with pytest's marks only, in classes whose bases are in the same file or
unittest's. Standard library and pytest only; see `referee.py`.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
import struct
import types

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
KNOWN_BASES = {"object", "TestCase", "unittest.TestCase", "unittest.IsolatedAsyncioTestCase"}
CO_OPTIMIZED = 1  # of functions, not of class bodies


def written_tests(files: list[str], workdir: str, plain: bool) -> dict[str, list[types.CodeType]]:
    """Node id, without parameters -> the code objects that may run under it.

    `plain`: nobody rewrites asserts, and the compiled files are left for pytest to import.
    """
    found: dict[str, list[types.CodeType]] = {}
    for file in files:
        path = os.path.join(workdir, file)
        try:
            with open(path, "rb") as stream:
                source = stream.read()
            tree = ast.parse(source, path)
            code = compile(tree, path, "exec", dont_inherit=True)
            tests = _certain(tree)
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue  # pytest will say so
        by_name = [_codes(code)]
        if plain:
            _leave_compiled(path, code, len(source))
        else:
            by_name.append(_codes(_rewritten(tree, source, path)))
        for node_id, names in tests.items():
            found[file + "::" + node_id] = [
                one for codes in by_name for name in names for one in codes.get(name, [])
            ]
    return found


def _certain(tree: ast.Module) -> dict[str, list[str]]:
    """Node id within the file -> where its function is written, for those that nothing wraps.

    A method that several classes above have may be any of theirs.
    """
    functions: dict[str, bool] = {}
    classes: dict[str, ast.ClassDef] = {}

    def visit(body: list[ast.stmt], prefix: str, certain: bool) -> None:
        for node in body:
            if isinstance(node, FUNCTIONS):
                plain = all(_is_mark(one) for one in node.decorator_list)
                functions[prefix + node.name] = (
                    certain and plain and functions.get(prefix + node.name, True)
                )
            elif isinstance(node, ast.ClassDef):
                classes[prefix + node.name] = node
                plain = all(_is_mark(one) for one in node.decorator_list) and not node.keywords
                visit(node.body, prefix + node.name + "::", certain and plain)
            else:  # if, try, with
                for inner in ("body", "orelse", "finalbody"):
                    visit(getattr(node, inner, []), prefix, certain)
                for handler in getattr(node, "handlers", []):
                    visit(handler.body, prefix, certain)

    visit(tree.body, "", True)
    stored = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }

    def lineage(name: str, seen: tuple[str, ...] = ()) -> list[str]:
        """The class and its bases, as methods are looked for; ends with "" where that is unsure."""
        found = [name]
        for base in classes[name].bases:
            text = _dotted(base)
            if text in classes and text not in seen and "::" not in name:
                found += lineage(text, (*seen, name))
            elif text not in KNOWN_BASES:
                found.append("")
        return found

    tests = {name: [name] for name, certain in functions.items() if certain and "::" not in name}
    for owner in classes:
        places = lineage(owner)
        if "" in places or any(stored & set(place.split("::")) for place in places):
            continue
        written: dict[str, list[str]] = {}
        for name in functions:
            folder, _, last = name.rpartition("::")
            if folder in places:
                written.setdefault(last, []).append(name)
        for last, names in written.items():
            if all(functions[name] for name in names):
                tests[owner + "::" + last] = names
    return {test: names for test, names in tests.items() if test.split("::")[-1] not in stored}


def _is_mark(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = _dotted(called)
    return name.startswith("pytest.mark.") or name in ("staticmethod", "classmethod")


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return _dotted(node.value) + "." + node.attr
    return node.id if isinstance(node, ast.Name) else "?"


def _codes(code: types.CodeType, prefix: str = "") -> dict[str, list[types.CodeType]]:
    found: dict[str, list[types.CodeType]] = {}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            name = prefix + const.co_name
            if const.co_flags & CO_OPTIMIZED:
                found.setdefault(name, []).append(const)
            else:
                for inner, codes in _codes(const, name + "::").items():
                    found.setdefault(inner, []).extend(codes)
    return found


def _rewritten(tree: ast.Module, source: bytes, path: str) -> types.CodeType:
    """As pytest's import hook compiles it. Changes `tree`."""
    from _pytest.assertion.rewrite import rewrite_asserts

    rewrite_asserts(tree, source, path)
    return compile(tree, path, "exec", dont_inherit=True)


def _leave_compiled(path: str, code: types.CodeType, size: int) -> None:
    """Where Python looks for it, so that the file is not compiled twice."""
    target = importlib.util.cache_from_source(path)
    time = int(os.stat(path).st_mtime)
    header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, time & 0xFFFFFFFF, size)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as stream:
            stream.write(header + marshal.dumps(code))
    except OSError:
        return
