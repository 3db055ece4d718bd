"""The signed log, read line by line: what holds, what is not there, what somebody else wrote."""

from __future__ import annotations

import hashlib
import json

import pytest

from contextrl.envs.evidence import LogError, TamperedError, check_canaries, read_log
from contextrl.envs.fake import FakeProvider
from contextrl.envs.grading import DockerGrader
from contextrl.envs.types import Outcome, Verdict

KEY = b"k" * 32
ADD = "tests/test_tiny.py::test_add"
PASSED = ["test", ADD, "call", "passed"]
CANARY = ["canary", ADD, "failed"]
END = ["end", "0"]


def log(*entries: list[str], key: bytes = KEY, first: int = 0) -> bytes:
    lines = []
    for number, entry in enumerate(entries, first):
        line = f"{number} {json.dumps(entry)}".encode()
        seal = hashlib.blake2b(line, key=key, digest_size=16).hexdigest().encode()
        lines.append(seal + b" " + line + b"\n")
    return b"".join(lines)


def test_a_whole_log_is_read():
    cases, canaries = read_log(log(CANARY, ["test", ADD, "setup", "passed"], PASSED, END), KEY)
    assert [(case.node_id, case.outcome) for case in cases] == [(ADD, Outcome.PASSED)]
    check_canaries(cases, canaries, [ADD])


@pytest.mark.parametrize(
    ("when", "outcome", "expected"),
    [
        ("setup", "failed", Outcome.ERROR),
        ("teardown", "failed", Outcome.ERROR),
        ("call", "failed", Outcome.FAILED),
        ("setup", "skipped", Outcome.SKIPPED),
    ],
)
def test_phases_become_outcomes(when, outcome, expected):
    (case,), _ = read_log(log(["test", ADD, when, outcome], END), KEY)
    assert case.outcome is expected


@pytest.mark.parametrize("content", [b"", log(PASSED)], ids=["empty", "no end"])
def test_a_log_without_an_end_proves_nothing(content):
    with pytest.raises(LogError, match="ended before the tests did"):
        read_log(content, KEY)


@pytest.mark.parametrize(
    "content",
    [
        log(PASSED, END, key=b"x" * 32),
        log(PASSED)[:-2] + b"x\n" + log(END, first=1),
        log(PASSED, PASSED, END).replace(b"passed", b"failed", 1),
        b"printed by a test\n" + log(PASSED, END),
        log(PASSED, END) + b"\n",
        log(PASSED) + log(PASSED) + log(END, first=1),
        log(CANARY, PASSED, END)[:60] + log(END, first=1),
        log(PASSED, END) + log(PASSED, first=2),
        log(["altered", "isinstance was replaced"], PASSED, END),
        log(["canary", ADD, "passed"], PASSED, END),
    ],
)
def test_what_the_runner_did_not_write_is_found(content):
    with pytest.raises(TamperedError):
        read_log(content, KEY)


def test_a_pass_without_its_canary_is_none():
    cases, canaries = read_log(log(PASSED, END), KEY)
    with pytest.raises(TamperedError, match="did not run with a body that fails"):
        check_canaries(cases, canaries, [ADD])
    failed, _ = read_log(log(["test", ADD, "call", "failed"], END), KEY)
    check_canaries(failed, (), [ADD])


TESTS = """\
import unittest

import pytest

from tiny import add


class Case(unittest.TestCase):
    def setUp(self):
        self.one = 1

    def test_method(self):
        self.assertEqual(add(self.one, 2), 3)

    @unittest.expectedFailure
    def test_known(self):
        self.assertEqual(add(self.one, 2), 4)


@pytest.fixture(params=["x", "y"])
def text(request):
    yield request.param


def test_fixture(text, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda: text)
    assert input() == add(text, "")


@pytest.mark.xfail
def test_marked():
    assert add(1, 2) == 4


@pytest.mark.xfail(strict=True)
def test_strict():
    assert add(1, 2) == 3
"""


def test_all_kinds_of_tests_are_run_and_reported(tiny_files, tiny_task):
    file = "tests/test_kinds.py"
    wanted = ["Case::test_method", "Case::test_known", "test_fixture[x]", "test_marked"]
    task = tiny_task.model_copy(
        update={
            "fail_to_pass": (f"{file}::Case::test_method", f"{file}::test_fixture[x]"),
            "pass_to_pass": tuple(f"{file}::{test}" for test in [*wanted, "test_strict"]),
        }
    )
    reward = DockerGrader(FakeProvider({**tiny_files, file: TESTS})).grade(task, task.gold_patch)
    assert reward.verdict is Verdict.UNRESOLVED, reward
    assert reward.tests[f"{file}::test_strict"] is Outcome.FAILED
    assert {reward.tests[f"{file}::{test}"] for test in wanted} == {Outcome.PASSED}
