"""Which lines of a module belong to which function or class."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def definitions(tree: ast.Module) -> Iterator[tuple[int, int, str]]:
    """(first line, last line, qualified name); decorators belong to what they decorate."""
    stack: list[tuple[ast.AST, str]] = [(tree, "")]
    while stack:
        node, prefix = stack.pop()
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}.{child.name}" if prefix else child.name
                first = min([child.lineno, *(each.lineno for each in child.decorator_list)])
                yield first, child.end_lineno or child.lineno, name
            stack.append((child, name))
