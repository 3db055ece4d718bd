"""Rows of bugs -> `BugRow`: a repository at a commit and the patch that breaks it, nothing more.

SWE-smith publishes more bugs than issues: many rows have no issue text and no lists of tests. What
they lack is found out by running the tests (`bug_tasks`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contextrl.envs.errors import TaskRowError
from contextrl.envs.reverse import reverse_patch
from contextrl.envs.tasks import read_rows
from contextrl.envs.types import Record

_ID = re.compile(
    r"(?P<owner>[\w-]+?)__(?P<name>[\w.-]+)\.(?P<sha>[0-9a-f]{8})\.(?P<kind>[\w-]+)__(?P<bug>[\w-]+)"
    r"|(?P<pr_owner>[\w-]+?)__(?P<pr_name>[\w.-]+)\.(?P<pr_sha>[0-9a-f]{8})\.pr_\d+"
)
_FILE = re.compile(r"^(?:---|\+\+\+) (?:[ab]/(.+?)|/dev/null)\s*$", re.MULTILINE)


class BugRow(Record):
    """One bug. `patch` makes it; its reverse is the reference fix."""

    instance_id: str
    repo: str
    """`owner/name` of the upstream repository."""
    mirror: str
    """`owner/name` of the repository that holds the commit; often a mirror of `repo`."""
    base_commit: str
    patch: str

    @property
    def place(self) -> tuple[str, str]:
        return self.repo, self.base_commit

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(found for found in _FILE.findall(self.patch) if found))


class UnusableRow(Record):
    instance_id: str
    """As far as the row says."""
    reason: str


def read_bugs(path: Path) -> tuple[list[BugRow], list[UnusableRow]]:
    """Every row of the file is in one list or the other. Raises `TaskRowError` for the file."""
    bugs: list[BugRow] = []
    unusable: list[UnusableRow] = []
    seen: set[str] = set()
    for row in read_rows(path):
        name = str(row.get("instance_id") or "") if isinstance(row, Mapping) else ""
        try:
            bug = bug_from_row(row)
            if bug.instance_id in seen:
                raise TaskRowError("field instance_id: appears twice")
        except TaskRowError as error:
            unusable.append(UnusableRow(instance_id=name, reason=str(error)))
            continue
        seen.add(bug.instance_id)
        bugs.append(bug)
    return bugs, unusable


def bug_from_row(row: Mapping[str, Any]) -> BugRow:
    """A row with `bug_patch`, or with `patch` as SWE-smith's hub has it."""
    if not isinstance(row, Mapping):
        raise TaskRowError(f"expected an object, found {type(row).__name__}")
    instance_id = _text(row, "instance_id")
    parts = _ID.fullmatch(instance_id)
    if parts is None:
        raise TaskRowError(
            "field instance_id: expected <owner>__<repo>.<8 hex digits>.<bug>, "
            f"found {instance_id[:100]!r}"
        )
    repo = f"{parts['owner'] or parts['pr_owner']}/{parts['name'] or parts['pr_name']}"
    patch = _text(row, "bug_patch" if "bug_patch" in row else "patch")
    reverse_patch(patch)  # raises for a binary one
    commit = str(row.get("base_commit") or parts["sha"] or parts["pr_sha"])
    if not re.fullmatch(r"[0-9a-f]{8,40}", commit):
        raise TaskRowError(f"field base_commit: expected a commit's id, found {commit[:60]!r}")
    bug = BugRow(
        instance_id=instance_id,
        repo=repo,
        mirror=str(row.get("repo") or repo),
        base_commit=commit,
        patch=patch,
    )
    if not bug.files:
        raise TaskRowError("field bug_patch: expected a unified diff, found no file in it")
    return bug


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise TaskRowError(f"field {field}: expected text, found {type(value).__name__}")
    return value
