"""Source without docstrings, comment lines and blank lines inside functions; same behaviour.

Tiny policies read whole functions, and a bug report must not compete with the doctest that would
answer it. The layout is also a contract with line-oriented tools: a top-level function has no
blank line inside and one after it, so `sed -n '/def f(/,/^$/p'` prints exactly that function, and
no line needs a single quote unless its text does.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

from contextrl.envs.errors import MutationError

RECIPE_VERSION = 1
"""Part of every cache key: raise it when prepared source changes."""


def prepare_source(text: str, *, name: str) -> str:
    """`text` without docstrings and comment lines, quotes normalised to double ones.

    Raises `MutationError` if `text` is no Python, or if preparing it changed more than docstrings.
    """
    try:
        tree = ast.parse(text)
        lines = _double_quotes(text).splitlines()
        inside_strings = _lines_inside_strings(text)
        replaced = _docstring_lines(tree)
        in_function = _function_lines(tree)
        ends = {node.end_lineno for node in tree.body if isinstance(node, _DEFINITIONS)}
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise MutationError(f"{name}: expected Python source, found: {error}") from error
    kept: list[str] = []
    for number, line in enumerate(lines, start=1):
        if number in replaced:
            if not (line := replaced[number]):
                continue
        elif number not in inside_strings:
            line = "" if line.lstrip().startswith("#") else line.rstrip()
            if not line and (number in in_function or not kept or not kept[-1]):
                continue
        kept.append(line)
        if number in ends:
            kept.append("")
    prepared = "\n".join(kept).rstrip("\n") + "\n"
    if _shape(prepared) != _shape(text):
        raise MutationError(f"{name}: preparing the source changed its meaning")
    return prepared


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)


def _docstring_lines(tree: ast.Module) -> dict[int, str]:
    """Line number -> what stands there instead: nothing, or `pass` in an otherwise empty body."""
    replaced: dict[int, str] = {}
    for node in ast.walk(tree):
        if not isinstance(node, (*_DEFINITIONS, ast.Module)) or ast.get_docstring(node) is None:
            continue
        statement = node.body[0]
        assert statement.end_lineno is not None
        for number in range(statement.lineno, statement.end_lineno + 1):
            replaced[number] = ""
        if len(node.body) == 1 and not isinstance(node, ast.Module):
            replaced[statement.lineno] = " " * statement.col_offset + "pass"
    return replaced


def _function_lines(tree: ast.Module) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS) and node.end_lineno is not None:
            found.update(range(node.lineno, node.end_lineno + 1))
    return found


def _strings(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int], str]]:
    """Start, end and text of every string literal; an f-string counts as one, its text as empty.

    Python 3.12 splits f-strings into tokens and 3.11 does not: the answer is the same for both.
    """
    opened: list[tuple[int, int]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "FSTRING_START":
            opened.append(token.start)
        elif kind == "FSTRING_END":
            start = opened.pop()
            if not opened:
                yield start, token.end, ""
        elif kind == "STRING" and not opened:
            yield token.start, token.end, token.string


def _lines_inside_strings(text: str) -> set[int]:
    """Lines whose beginning or end belongs to a string, where nothing may be stripped."""
    found: set[int] = set()
    for start, end, _ in _strings(text):
        if start[0] != end[0]:
            found.update(range(start[0], end[0] + 1))
    return found


def _double_quotes(text: str) -> str:
    """`'x'` becomes `"x"` wherever neither quotes nor backslashes are inside."""
    lines = text.splitlines(keepends=True)
    for start, end, literal in _strings(text):
        body = literal[1:-1]
        if not literal.startswith("'") or start[0] != end[0]:
            continue
        if any(mark in body for mark in "'\"\\"):
            continue
        line = lines[start[0] - 1]
        lines[start[0] - 1] = f'{line[: start[1]]}"{body}"{line[end[1] :]}'
    return "".join(lines)


def _shape(text: str) -> str:
    """The syntax tree without docstrings and positions."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (*_DEFINITIONS, ast.Module)) and ast.get_docstring(node) is not None:
            del node.body[0]
            if not node.body and not isinstance(node, ast.Module):
                node.body = [ast.Pass()]
    return ast.dump(tree)
