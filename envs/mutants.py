"""All single-line bugs of a source file, and the patches that set and undo them."""

from __future__ import annotations

import ast
import difflib
import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from contextrl.envs.operators import OPERATORS, Edit, Scope, Source
from contextrl.envs.types import Record


class Mutant(Record):
    """One changed line of one top-level function."""

    file: str
    function: str
    operator: str
    line: int
    """From 1, in the prepared source."""
    before: str
    """The correct line."""
    after: str
    """The buggy line."""

    @property
    def key(self) -> str:
        """Eight hex digits that name this bug among all bugs of the package."""
        identity = "\0".join((self.file, str(self.line), self.after))
        return hashlib.sha256(identity.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Function:
    """A top-level function whose name occurs in only one `def` of the package's sources."""

    file: str
    name: str
    first_line: int
    """Of its first decorator, if it has any."""
    def_line: int
    last_line: int

    @property
    def lines(self) -> int:
        return self.last_line - self.def_line + 1


@dataclass(frozen=True, slots=True)
class Proposals:
    """Of one file: the mutants, each with a meaning of its own, and why other edits are not."""

    mutants: tuple[Mutant, ...]
    dropped: Counter[str]


def functions_of(sources: Mapping[str, str], *, max_lines: int) -> tuple[Function, ...]:
    """Top-level functions of at most `max_lines` lines with unambiguous names, in source order.

    A name that any other `def` shares, a method's included, is ambiguous: a reader that looks for
    `def name(` would find two places.
    """
    names = Counter(
        name for text in sources.values() for name in re.findall(r"\bdef\s+(\w+)\s*\(", text)
    )
    found = []
    for file, text in sources.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and names[node.name] == 1 and node.end_lineno:
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                function = Function(file, node.name, first, node.lineno, node.end_lineno)
                if function.lines <= max_lines:
                    found.append(function)
    return tuple(found)


def propose(file: str, text: str, functions: Iterable[Function]) -> Proposals:
    """Every bug that the operators find in `functions`, in source order.

    A mutant parses, differs from the original and from all other mutants in its syntax tree, and
    both of its lines can stand between single quotes in a shell command.
    """
    wanted = {each.def_line: each for each in functions if each.file == file}
    tree, source = ast.parse(text), Source(text)
    dropped = Counter[str]()
    mutants = []
    for node in tree.body:
        function = wanted.get(node.lineno)
        if function is None or not isinstance(node, ast.FunctionDef):
            continue
        body = source.lines[function.first_line - 1 : function.last_line]
        seen = {ast.dump(node)}
        for operator, edit in _edits(node, source):
            before = source.lines[edit.line - 1]
            after = (before[: edit.start] + edit.text + before[edit.end :]).rstrip()
            if not (_plain(before) and _plain(after)):
                dropped["not-plain"] += 1
                continue
            try:
                shape = _shape(body, edit.line - function.first_line, after)
            except SyntaxError:
                dropped["no-parse"] += 1
                continue
            if shape in seen:
                dropped["same-meaning"] += 1
                continue
            seen.add(shape)
            mutants.append(
                Mutant(
                    file=file,
                    function=function.name,
                    operator=operator,
                    line=edit.line,
                    before=before,
                    after=after,
                )
            )
    return Proposals(tuple(mutants), dropped)


def spread(mutants: Iterable[Mutant], *, seed: int) -> list[Mutant]:
    """One function's mutants in an order whose every prefix covers many lines and operators."""
    by_line: dict[int, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        by_line[mutant.line].append(mutant)
    if not by_line:
        return []
    function = next(iter(by_line.values()))[0]
    rng = random.Random(f"{seed}:{function.file}:{function.function}")
    queues = [rng.sample(each, len(each)) for _, each in sorted(by_line.items())]
    rng.shuffle(queues)
    used: Counter[str] = Counter()
    ordered = []
    while queues:
        for queue in queues:
            mutant = min(queue, key=lambda each: used[each.operator])
            queue.remove(mutant)
            used[mutant.operator] += 1
            ordered.append(mutant)
        queues = [queue for queue in queues if queue]
    return ordered


def with_line(text: str, line: int, new: str) -> str:
    lines = text.split("\n")
    lines[line - 1] = new
    return "\n".join(lines)


def bug_patch(mutant: Mutant, text: str) -> str:
    """The diff from the original `text` to the mutant, as git writes it."""
    return _git_diff(mutant.file, text, with_line(text, mutant.line, mutant.after))


def fix_patch(mutant: Mutant, text: str) -> str:
    """The exact reverse of `bug_patch`."""
    return _git_diff(mutant.file, with_line(text, mutant.line, mutant.after), text)


def _git_diff(file: str, old: str, new: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{file}", f"b/{file}"
    )
    return f"diff --git a/{file} b/{file}\n" + "".join(lines)


def _plain(line: str) -> bool:
    return line.isascii() and line.isprintable() and not any(mark in line for mark in "'\\")


def _shape(function: list[str], index: int, line: str) -> str:
    """The syntax tree of a function, alone in its file, with one of its lines replaced."""
    (node,) = ast.parse("\n".join([*function[:index], line, *function[index + 1 :]])).body
    return ast.dump(node)


def _edits(function: ast.FunctionDef, source: Source) -> Iterator[tuple[str, Edit]]:
    for node, scope in _walk(function):
        for name, operator in OPERATORS.items():
            for edit in operator(node, source, scope):
                yield name, edit


def _walk(function: ast.FunctionDef) -> Iterator[tuple[ast.AST, Scope]]:
    """The function's nodes with the names they see; decorators and annotations left out."""
    stack: list[tuple[ast.AST, Scope]] = [(function, {})]
    while stack:
        node, scope = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            scope = {**scope, **_own_names(node)}
        yield node, scope
        children: list[ast.AST] = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            defaults = [*node.args.defaults, *(each for each in node.args.kw_defaults if each)]
            children = [*defaults, *node.body]
        stack.extend((child, scope) for child in reversed(children))


def _own_names(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Scope:
    """Parameters and assigned names, not those of nested functions and comprehensions.

    Parameters count as bound one line above the `def`: the body may stand on its line.
    """
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [each for each in (arguments.vararg, arguments.kwarg) if each]
    bound = {each.arg: function.lineno - 1 for each in every}
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.comprehension)
    stack: list[ast.AST] = list(function.body) if isinstance(function.body, list) else []
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound[node.id] = min(node.lineno, bound.get(node.id, node.lineno))
        if not isinstance(node, inner):
            stack.extend(ast.iter_child_nodes(node))
    return bound
