"""What runs of a suite say about its tests and about a bug."""

from __future__ import annotations

import pytest

from contextrl.envs.mutants import Function
from contextrl.envs.mutation_runner import Ended, SuiteReport
from contextrl.envs.mutation_scope import Scope, baseline, judge
from contextrl.envs.types import Outcome

F = Function("m.py", "f", first_line=1, def_line=2, last_line=5)
G = Function("m.py", "g", first_line=7, def_line=7, last_line=9)
H = Function("m.py", "h", first_line=11, def_line=11, last_line=12)
SCOPE = Scope(
    file="t.py", covering=("t.py::test_f", "t.py::test_both"), neighbours=("t.py::test_other",)
)


def report(outcomes, *, touched=None, crashes=None, ended=Ended.REPORTED):
    return SuiteReport(
        run_id="r",
        ended=ended,
        outcomes=outcomes,
        crashes=crashes or {},
        touched=touched or {},
        seconds=0.1,
    )


def test_tests_that_fail_once_or_are_missing_once_are_not_trusted():
    steady = {"t.py::test_f": "passed", "t.py::test_skip": "skipped"}
    base = baseline(
        [F],
        [
            report({**steady, "t.py::test_flaky": "passed", "t.py::test_gone": "passed"}),
            report({**steady, "t.py::test_flaky": "failed"}),
        ],
    )
    assert base.trusted == ("t.py::test_f",)
    assert base.distrusted == ("t.py::test_flaky", "t.py::test_gone", "t.py::test_skip")


def test_a_function_is_covered_through_any_function_object_inside_it_nearest_test_first():
    names = ["t.py::test_a", "t.py::test_f", "t.py::test_f_more", "u.py::test_u", "t.py::test_x"]
    touched = {
        "t.py::test_a": (("m.py", 1), ("m.py", 7)),
        "u.py::test_u": (("m.py", 4),),
        "t.py::test_f": (("m.py", 4), ("m.py", 8)),
        "t.py::test_f_more": (("m.py", 1),),
        "t.py::test_x": (("other.py", 1),),
    }
    outcomes = dict.fromkeys(names, "passed")
    base = baseline([F, G, H], [report(outcomes), report(outcomes, touched=touched)])
    assert base.scopes["f"] == Scope(
        file="t.py",
        covering=("t.py::test_f", "t.py::test_f_more", "t.py::test_a"),
        neighbours=("t.py::test_x",),
    )
    assert base.scopes["g"].covering == ("t.py::test_a", "t.py::test_f")
    assert "h" not in base.scopes


def test_a_bug_breaks_a_test_and_leaves_another():
    seen = report(
        {"t.py::test_f": "failed", "t.py::test_both": "passed", "t.py::test_other": "passed"}
    )
    verdict = judge(seen, SCOPE)
    assert (verdict.reason, verdict.failing) == ("", ("t.py::test_f",))
    assert verdict.passing == ("t.py::test_both", "t.py::test_other")


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (report(dict.fromkeys(SCOPE.tests, Outcome.PASSED)), "survived"),
        (report(dict.fromkeys(SCOPE.tests, Outcome.FAILED)), "no-pass-to-pass"),
        (report({}), "no-pass-to-pass"),
        (report({}, ended=Ended.CPU_LIMIT), "resource-limit"),
        (report({}, ended=Ended.WALL_LIMIT), "resource-limit"),
        (report({}, ended=Ended.NO_REPORT), "resource-limit"),
        (report({}, crashes={"t.py::test_f": "MemoryError"}), "resource-limit"),
    ],
)
def test_what_is_no_task_says_why(seen, reason):
    assert judge(seen, SCOPE).reason == reason
