"""Each operator on a line of its own: the buggy lines it proposes, and nothing else."""

from __future__ import annotations

import ast

import pytest

from contextrl.envs.operators import OPERATORS, Scope, Source

SCOPE: Scope = {"a": 1, "b": 1, "late": 9}


def proposed(operator: str, line: str) -> list[str]:
    """Every line that `operator` makes of `line`, the second of a function of `SCOPE`."""
    text = f"def f(a, b):\n    {line}\n"
    source, found = Source(text), []
    for node in ast.walk(ast.parse(text).body[0].body[0]):  # type: ignore[attr-defined]
        for edit in OPERATORS[operator](node, source, SCOPE):
            old = source.lines[edit.line - 1]
            found.append((old[: edit.start] + edit.text + old[edit.end :]).strip())
    return found


EXAMPLES = [
    ("compare", "return a < b", ["return a <= b", "return a > b"]),
    ("compare", "return (a) is  not (b)", ["return (a) is (b)"]),
    ("compare", "return a in b", ["return a not in b"]),
    ("compare", "return a == b != 3", ["return a != b != 3", "return a == b == 3"]),
    ("arithmetic", "return a * b", ["return a + b", "return a // b"]),
    ("arithmetic", "a += 1", ["a -= 1"]),
    ("boolean", "return a and b and 1", ["return a or b and 1", "return a and b or 1"]),
    ("constant", "return a[1]", ["return a[2]", "return a[0]"]),
    ("constant", "return True", ["return False"]),
    ("constant", "a = None", ["a = 0"]),
    ("constant", "return 'x', 1.5", []),
    ("negate", "if a: return b", ["if not a: return b"]),
    ("negate", "if a and b: return b", ["if not (a and b): return b"]),
    ("negate", "return not a", ["return a"]),
    ("negate", "return b[-1]", ["return b[1]"]),
    ("fixed-condition", "if a: return b", ["if True: return b", "if False: return b"]),
    ("fixed-condition", "while a: pass", ["while False: pass"]),
    ("swap-arguments", "return f(a,  b, 1)", ["return f(b,  a, 1)", "return f(a,  1, b)"]),
    ("drop-argument", "return f(a, b)", ["return f(a)"]),
    ("drop-argument", "return f(a, b, key=1)", []),
    ("drop-call", "return list(a)", ["return a"]),
    ("drop-call", "f(a, b)", ["pass"]),
    ("drop-call", "yield a", ["pass"]),
    ("drop-attribute", "return a.b.c", ["return a.b", "return a.c"]),
    ("wrong-variable", "return a", ["return b"]),
    ("wrong-target", "a = 1", ["b = 1"]),
    ("changed-return", "return a + b", ["return None"]),
    ("changed-return", "return", []),
    ("lost-value", "a = f(b)", ["a = None"]),
]


@pytest.mark.parametrize(("operator", "line", "expected"), EXAMPLES)
def test_an_operator_proposes_exactly_these_lines(operator, line, expected):
    assert sorted(proposed(operator, line)) == sorted(expected)


def test_every_operator_has_an_example():
    assert {operator for operator, _, _ in EXAMPLES} == set(OPERATORS)


def test_columns_are_characters_where_the_tree_counts_bytes():
    assert (
        proposed("compare", 'return "\u00e9\u00e9" + a < b')[0] == 'return "\u00e9\u00e9" + a <= b'
    )


def test_nodes_that_span_lines_are_left_alone():
    text = "def f(a, b):\n    return g(\n        a\n    ) < b\n"
    source = Source(text)
    returned = ast.parse(text).body[0].body[0]  # type: ignore[attr-defined]
    assert not list(OPERATORS["changed-return"](returned, source, SCOPE))
    call = returned.value.left
    assert not list(OPERATORS["drop-call"](call, source, SCOPE))


def test_a_variable_is_not_replaced_by_one_without_a_value_yet():
    assert "late" not in " ".join(proposed("wrong-variable", "return a"))
