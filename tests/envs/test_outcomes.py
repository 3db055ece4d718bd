"""Test ids as datasets spell them, against what pytest calls its tests."""

from __future__ import annotations

import subprocess
import sys

from contextrl.envs.fake import FakeProvider
from contextrl.envs.grading import DockerGrader
from contextrl.envs.outcomes import Case, outcomes
from contextrl.envs.types import Outcome

AWKWARD = """\
import pytest

@pytest.mark.parametrize("text", ["a b", "x[1]", "p::q", "a/b.py", "<&>", "\\n", "\\u00e9", "c"])
def test_text(text):
    assert text != "c"

class TestA:
    class TestB:
        def test_inner(self):
            raise SystemExit(1)

    def test_teardown_fails(self, broken):
        pass

@pytest.fixture
def broken():
    yield
    assert 0

@pytest.mark.xfail
def test_xfail():
    assert 0

def test_skip():
    pytest.skip()
"""


def test_ids_are_those_that_pytest_collects(tmp_path, tiny_task):
    name = "tests/deep.er/test_awkward.py"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(AWKWARD)
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir=.", "--collect-only", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    ids = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(ids) == 12
    task = tiny_task.model_copy(
        update={"setup_patch": "", "fail_to_pass": (ids[-1],), "pass_to_pass": tuple(ids)}
    )

    reward = DockerGrader(FakeProvider({name: AWKWARD})).grade(task, "")

    assert {test.rsplit("::", 1)[-1]: outcome for test, outcome in reward.tests.items()} == {
        "test_text[a b]": Outcome.PASSED,
        "test_text[x[1]]": Outcome.PASSED,
        "q]": Outcome.PASSED,
        "test_text[a/b.py]": Outcome.PASSED,
        "test_text[<&>]": Outcome.PASSED,
        "test_text[\\n]": Outcome.PASSED,
        "test_text[\\xe9]": Outcome.PASSED,
        "test_text[c]": Outcome.FAILED,
        "test_inner": Outcome.FAILED,
        "test_teardown_fails": Outcome.ERROR,
        "test_xfail": Outcome.PASSED,
        "test_skip": Outcome.SKIPPED,
    }


def case(name: str, outcome: Outcome = Outcome.PASSED) -> Case:
    return Case(node_id=f"t.py::{name}", outcome=outcome)


def test_what_is_absent_is_missing():
    assert outcomes([], ["t.py::a"]) == {"t.py::a": Outcome.MISSING}


def test_of_two_reports_of_one_test_the_worse_counts():
    cases = [case("a", Outcome.FAILED), case("a")]
    assert outcomes(cases, ["t.py::a"]) == {"t.py::a": Outcome.FAILED}


def test_an_id_cut_at_a_blank_stands_for_all_that_continue_it():
    cases = [case("a[x y]"), case("a[x z]", Outcome.FAILED), case("a[w]")]
    assert outcomes(cases, ["t.py::a[x"]) == {"t.py::a[x": Outcome.FAILED}
    assert outcomes(cases, ["t.py::a[w]"]) == {"t.py::a[w]": Outcome.PASSED}


def test_bare_names_are_found():
    assert outcomes([case("a")], ["a"]) == {"a": Outcome.PASSED}
