"""The bug report names the symptom and never the answer."""

from __future__ import annotations

import pytest

from contextrl.envs.issue_text import issue_text
from contextrl.envs.mutants import Mutant, functions_of, propose

MUTANT = Mutant(
    file="toolz/itertoolz.py",
    function="unique",
    operator="compare",
    line=157,
    before="        if val not in seen:",
    after="        if val in seen:",
)
TEST = "toolz/tests/test_itertoolz.py::test_unique"


def test_it_names_function_file_test_and_error():
    assert issue_text(MUTANT, TEST, "AssertionError: assert (1, 2, 3) == (1, 2)") == (
        "unique in toolz/itertoolz.py is wrong.\ntest_unique fails: E assert (1, 2, 3) == (1, 2)"
    )


def test_a_test_without_an_error_message_just_fails():
    assert issue_text(MUTANT, "t.py::TestA::test_b", "").endswith("\nTestA.test_b fails.")


@pytest.mark.parametrize(
    ("crash", "shown"),
    [
        ("assert <f at 0x7f3e229184d0> == 1", "assert <f> == 1"),
        ("assert <test_dicttoo...x7f3e229184d0> == 1", "assert <test_dicttoo...> == 1"),
        ("SyntaxError: bad (line 157)", "SyntaxError: bad"),
        ("ValueError: " + "long " * 40, "ValueError: " + "long " * 14 + "long..."),
    ],
)
def test_addresses_line_numbers_and_long_messages_are_cut(crash, shown):
    assert issue_text(MUTANT, TEST, crash).partition(" fails: E ")[2] == shown


@pytest.mark.parametrize("line", [MUTANT.before, MUTANT.after])
def test_an_error_that_quotes_the_code_is_reduced_to_its_kind(line):
    report = issue_text(MUTANT, TEST, f"RuntimeError: near {line.strip()}")
    assert report.endswith("test_unique fails: E RuntimeError")


def test_no_report_of_a_source_contains_a_line_of_the_fix_or_is_long():
    text = "def pick(n, seq):\n    out = list(seq)\n    return out[n] if n else None\n"
    functions = functions_of({"m.py": text}, max_lines=9)
    for mutant in propose("m.py", text, functions).mutants:
        report = issue_text(mutant, "t.py::test_pick", f"NameError: {mutant.before.strip()}")
        assert mutant.before.strip() not in report
        assert mutant.after.strip() not in report
        assert len(report.split()) <= 60
