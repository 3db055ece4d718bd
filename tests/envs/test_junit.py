"""Reports, honest ones and hostile ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from contextrl.envs.junit import ReportError, outcomes, read_report
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


def test_ids_are_those_that_pytest_collects(tmp_path):
    folder = tmp_path / "tests" / "deep.er"
    folder.mkdir(parents=True)
    (folder / "test_awkward.py").write_text(AWKWARD)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=."]
    run = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
    listed = subprocess.run([*command, "--collect-only"], **run).stdout.splitlines()
    ids = [line for line in listed if "::" in line]
    assert len(ids) == 12
    report = tmp_path / "report.xml"
    subprocess.run([*command, "-o", "junit_family=xunit1", f"--junitxml={report}"], **run)

    found = outcomes(read_report(report.read_bytes()), ids)

    assert {test.rsplit("::", 1)[-1]: outcome for test, outcome in found.items()} == {
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


def report(*cases: str) -> bytes:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>".encode()


def case(name: str, inside: str = "") -> str:
    return f'<testcase file="t.py" classname="t" name="{name}">{inside}</testcase>'


def test_what_is_absent_is_missing():
    assert outcomes(read_report(report()), ["t.py::a"]) == {"t.py::a": Outcome.MISSING}


def test_of_two_reports_of_one_test_the_worse_counts():
    cases = read_report(report(case("a", "<failure/>"), case("a")))
    assert outcomes(cases, ["t.py::a"]) == {"t.py::a": Outcome.FAILED}


def test_an_id_cut_at_a_blank_stands_for_all_that_continue_it():
    cases = read_report(report(case("a[x y]"), case("a[x z]", "<failure/>"), case("a[w]")))
    assert outcomes(cases, ["t.py::a[x"]) == {"t.py::a[x": Outcome.FAILED}
    assert outcomes(cases, ["t.py::a[w]"]) == {"t.py::a[w]": Outcome.PASSED}


def test_bare_names_are_found():
    assert outcomes(read_report(report(case("a"))), ["a"]) == {"a": Outcome.PASSED}


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"PASSED t.py::a",
        b"<testsuites>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><testsuites/>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><testsuites/>',
        '<!DOCTYPE x [<!ENTITY a "b">]><testsuites/>'.encode("utf-16"),
        b"<a>&undefined;</a>",
        b"\xff\xfe\x00",
    ],
)
def test_hostile_reports_are_refused(hostile):
    with pytest.raises(ReportError):
        read_report(hostile)


def test_a_report_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr("contextrl.envs.junit.MAX_REPORT_BYTES", 10)
    with pytest.raises(ReportError, match="at most 10"):
        read_report(report())
