"""pytest's junit report -> the outcome of each listed test. The report is hostile input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from xml.parsers import expat

from contextrl.envs.types import Outcome

MAX_REPORT_BYTES = 64 * 1024 * 1024

_SEVERITY = (Outcome.PASSED, Outcome.SKIPPED, Outcome.FAILED, Outcome.ERROR)


class ReportError(ValueError):
    """The bytes are not a junit report that we are willing to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test as pytest names it: `file::Class::name[params]`."""

    node_id: str
    outcome: Outcome


def read_report(content: bytes) -> list[Case]:
    """The report's cases, in order. Nothing is expanded or fetched; memory is that of the names.

    Needs `-o junit_family=xunit1`, whose cases name their file. Raises `ReportError`.
    """
    if len(content) > MAX_REPORT_BYTES:
        raise ReportError(f"report of {len(content)} bytes, expected at most {MAX_REPORT_BYTES}")
    cases: list[Case] = []
    current: dict[str, str] = {}
    outcome = Outcome.PASSED

    def refuse(*_: object) -> None:
        raise ReportError("report has a document type declaration, which pytest never writes")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal current, outcome
        if tag == "testcase":
            current, outcome = attributes, Outcome.PASSED
        elif tag in {"failure", "error"}:
            outcome = _worse(outcome, Outcome.FAILED if tag == "failure" else Outcome.ERROR)
        elif tag == "skipped" and attributes.get("type") != "pytest.xfail":
            # An expected failure is what the test promises; SWE-bench counts it as passed too.
            outcome = _worse(outcome, Outcome.SKIPPED)

    def end(tag: str) -> None:
        nonlocal current
        if tag == "testcase":
            cases.append(Case(node_id=_node_id(current), outcome=outcome))
            current = {}

    parser = expat.ParserCreate(encoding="utf-8")
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise ReportError(f"report is not well-formed XML: {error}") from error
    return cases


def outcomes(cases: Iterable[Case], wanted: Iterable[str]) -> dict[str, Outcome]:
    """The outcome of every wanted test id; of a test reported twice, the worse one.

    Two kinds of ids are not pytest's own. Some datasets cut parametrised ids at their first blank:
    an id with an open bracket stands for all that continue it. Some list bare function names.
    """
    by_id: dict[str, Outcome] = {}
    by_name: dict[str, Outcome] = {}
    for case in cases:
        name = case.node_id.rsplit("::", 1)[-1] if "[" not in case.node_id else ""
        for table, key in ((by_id, case.node_id), (by_name, name)):
            table[key] = _worse(table.get(key, Outcome.PASSED), case.outcome)
    found = {}
    for test in wanted:
        outcome = by_id.get(test)
        if outcome is None and "[" in test and not test.endswith("]"):
            for node_id, other in by_id.items():
                if node_id.startswith(test):
                    outcome = _worse(outcome or Outcome.PASSED, other)
        if outcome is None and "::" not in test:
            outcome = by_name.get(test)
        found[test] = outcome or Outcome.MISSING
    return found


def _worse(one: Outcome, other: Outcome) -> Outcome:
    return max(one, other, key=_SEVERITY.index)


def _node_id(attributes: dict[str, str]) -> str:
    """pytest writes the id `a/b.py::C::f` as file `a/b.py`, classname `a.b.C`, name `f`."""
    file, name = attributes.get("file", ""), attributes.get("name", "")
    module = file.removesuffix(".py").replace("/", ".")
    classes = attributes.get("classname", "")
    classes = classes[len(module) + 1 :] if classes.startswith(f"{module}.") else ""
    return "::".join([file, *classes.split("."), name] if classes else [file, name])
