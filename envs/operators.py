"""Ways to break a line of Python: each operator maps one syntax node to single-line edits.

Operators only propose. Whether an edit parses, changes the meaning and breaks a test is decided
in `mutants` and `mutate`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

Scope = Mapping[str, int]
"""Parameters and local variables that a node can see, and the line that first binds each."""


@dataclass(frozen=True, slots=True)
class Edit:
    """On line `line` (from 1), characters `start` to `end` (half open) become `text`."""

    line: int
    start: int
    end: int
    text: str


class Source:
    """Text addressed by syntax nodes, whose columns count UTF-8 bytes."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()

    def column(self, line: int, byte_offset: int) -> int:
        return len(self.lines[line - 1].encode()[:byte_offset].decode())

    def text(self, node: ast.expr | ast.stmt) -> str | None:
        """The node as written, or None if it spans lines."""
        if node.end_lineno != node.lineno or node.end_col_offset is None:
            return None
        line = self.lines[node.lineno - 1].encode()
        return line[node.col_offset : node.end_col_offset].decode()

    def replace(self, node: ast.expr | ast.stmt, text: str) -> Iterator[Edit]:
        """Nothing if the node spans lines."""
        if node.end_lineno == node.lineno and node.end_col_offset is not None:
            start = self.column(node.lineno, node.col_offset)
            yield Edit(node.lineno, start, self.column(node.lineno, node.end_col_offset), text)

    def between(self, left: ast.expr, right: ast.expr, token: str, text: str) -> Iterator[Edit]:
        """Replace the operator `token` that stands between two operands on one line."""
        if left.end_lineno != right.lineno or left.end_col_offset is None:
            return
        start = self.column(right.lineno, left.end_col_offset)
        end = self.column(right.lineno, right.col_offset)
        pattern = re.escape(token).replace(r"\ ", r"\s+")
        if found := re.search(pattern, self.lines[right.lineno - 1][start:end]):
            yield Edit(right.lineno, start + found.start(), start + found.end(), text)


Operator = Callable[[ast.AST, Source, Scope], Iterator[Edit]]

_COMPARE: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-",)),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+", "//")),
    ast.Div: ("/", ("*",)),
    ast.FloorDiv: ("//", ("*",)),
    ast.Mod: ("%", ("//",)),
    ast.Pow: ("**", ("*",)),
    ast.BitOr: ("|", ("&",)),
    ast.BitAnd: ("&", ("|",)),
}


def compare(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`a < b` -> `a <= b`, `a > b`; `is` <-> `is not`; `in` <-> `not in`."""
    if isinstance(node, ast.Compare):
        for (left, right), op in zip(
            pairwise([node.left, *node.comparators]), node.ops, strict=True
        ):
            token, others = _COMPARE[type(op)]
            for other in others:
                yield from source.between(left, right, token, other)


def arithmetic(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`a + b` -> `a - b`, and `a += b` -> `a -= b`."""
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        token, others = _ARITHMETIC[type(node.op)]
        for other in others:
            yield from source.between(node.left, node.right, token, other)
    if isinstance(node, ast.AugAssign) and type(node.op) in _ARITHMETIC:
        token, others = _ARITHMETIC[type(node.op)]
        for other in others:
            yield from source.between(node.target, node.value, f"{token}=", f"{other}=")


def boolean(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`a and b` <-> `a or b`."""
    if isinstance(node, ast.BoolOp):
        token, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            yield from source.between(left, right, token, other)


def constant(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """Numbers off by one, `True` <-> `False`, `None` -> `0`."""
    if not isinstance(node, ast.Constant):
        return
    if node.value is None:
        yield from source.replace(node, "0")
    elif isinstance(node.value, bool):
        yield from source.replace(node, str(not node.value))
    elif isinstance(node.value, int):
        for value in (node.value + 1, node.value - 1):
            yield from source.replace(node, str(value))


def negate(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`if x:` -> `if not x:`; `not x` -> `x`; `-x` -> `x`."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        if (operand := source.text(node.operand)) is not None:
            yield from source.replace(node, operand)
    elif (
        isinstance(node, ast.If | ast.While | ast.IfExp)
        and not isinstance(node.test, ast.Compare | ast.UnaryOp)
        and (test := source.text(node.test)) is not None
    ):
        simple = isinstance(node.test, ast.Name | ast.Call | ast.Attribute)
        yield from source.replace(node.test, f"not {test}" if simple else f"not ({test})")


def fixed_condition(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`if x:` -> `if True:`, `if False:`; loops only become `while False:`."""
    if isinstance(node, ast.If | ast.IfExp):
        yield from source.replace(node.test, "True")
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield from source.replace(node.test, "False")


def swap_arguments(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`f(a, b)` -> `f(b, a)`, neighbours only."""
    if isinstance(node, ast.Call):
        for left, right in pairwise(node.args):
            first, second = source.text(left), source.text(right)
            if first is None or second is None or left.lineno != right.lineno:
                continue
            start = source.column(left.lineno, left.col_offset)
            end = source.column(right.lineno, right.col_offset) + len(second)
            gap = source.lines[left.lineno - 1][start + len(first) : end - len(second)]
            yield Edit(left.lineno, start, end, second + gap + first)


def drop_argument(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`f(a, b)` -> `f(a)`."""
    if isinstance(node, ast.Call) and len(node.args) >= 2 and not node.keywords:
        left, right = node.args[-2:]
        if left.end_lineno == right.end_lineno and left.end_col_offset and right.end_col_offset:
            start = source.column(right.lineno, left.end_col_offset)
            yield Edit(right.lineno, start, source.column(right.lineno, right.end_col_offset), "")


def drop_call(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`f(x)` -> `x`, and a call or yield that stands alone -> `pass`."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        if not isinstance(node.args[0], ast.Starred) and (text := source.text(node.args[0])):
            yield from source.replace(node, text)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Yield):
        yield from source.replace(node, "pass")


def drop_attribute(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`x.y` -> `x`."""
    if isinstance(node, ast.Attribute) and (text := source.text(node.value)) is not None:
        yield from source.replace(node, text)


def wrong_variable(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """A read of one local name becomes a read of another that has a value by then, four at most."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in scope:
        for other in _others(node.id, {n: at for n, at in scope.items() if at < node.lineno})[:4]:
            yield from source.replace(node, other)


def wrong_target(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`a = x` -> `b = x`, for the next local name."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in scope:
        for other in _others(node.id, scope)[:1]:
            yield from source.replace(node, other)


def _others(name: str, scope: Scope) -> list[str]:
    """The other names of the scope, those after `name` in the alphabet first."""
    return sorted(scope.keys() - {name}, key=lambda other: (other < name, other))


def changed_return(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`return x` -> `return None`."""
    if isinstance(node, ast.Return) and node.value is not None:
        yield from source.replace(node.value, "None")


def lost_value(node: ast.AST, source: Source, scope: Scope) -> Iterator[Edit]:
    """`a = x` -> `a = None`."""
    if isinstance(node, ast.Assign):
        yield from source.replace(node.value, "None")


OPERATORS: dict[str, Operator] = {
    operator.__name__.replace("_", "-"): operator
    for operator in (
        compare,
        arithmetic,
        boolean,
        constant,
        negate,
        fixed_condition,
        swap_arguments,
        drop_argument,
        drop_call,
        drop_attribute,
        wrong_variable,
        wrong_target,
        changed_return,
        lost_value,
    )
}
