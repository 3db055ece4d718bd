"""The diff that undoes a diff. SWE-smith publishes the bug; the fix is its reverse."""

from __future__ import annotations

import re

from contextrl.envs.errors import TaskRowError

_HUNK = re.compile(r"@@ -(\d+(?:,(\d+))?) \+(\d+(?:,(\d+))?) @@(.*)", re.DOTALL)
_INDEX = re.compile(r"index ([0-9a-f]+)\.\.([0-9a-f]+)(.*)", re.DOTALL)
_OPPOSITES = (
    ("new file mode ", "deleted file mode "),
    ("old mode ", "new mode "),
    ("rename from ", "rename to "),
    ("copy from ", "copy to "),
)


def reverse_patch(patch: str) -> str:
    """Applying the result after `patch` restores every file. Raises `TaskRowError` for binary."""
    lines = patch.split("\n")
    out: list[str] = []
    header: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        if line.startswith(("GIT binary patch", "Binary files ")):
            raise TaskRowError("field patch: expected a text diff, found a binary one")
        hunk = _HUNK.fullmatch(line)
        if hunk is None:
            if line.startswith("diff ") or (line.startswith("--- ") and _ends_names(header)):
                out += _reverse_header(header)
                header = []
            header.append(line)
            index += 1
            continue
        out += _reverse_header(header)
        header = []
        old, old_count, new, new_count, rest = hunk.groups()
        out.append(f"@@ -{new} +{old} @@{rest}")
        body, index = _reverse_hunk(lines, index + 1, int(old_count or 1), int(new_count or 1))
        out += body
    return "\n".join(out + _reverse_header(header))


def _reverse_hunk(lines: list[str], index: int, old: int, new: int) -> tuple[list[str], int]:
    """The body with its sides exchanged, removals first; the index of the line after it."""
    out: list[str] = []
    removals: list[str] = []
    additions: list[str] = []
    last = out
    while index < len(lines) and (old > 0 or new > 0 or lines[index].startswith("\\")):
        line = lines[index]
        index += 1
        if line.startswith("\\"):  # "No newline at end of file" belongs to the line before it
            last.append(line)
            continue
        if line.startswith("-"):
            additions.append("+" + line[1:])
            last, old = additions, old - 1
            continue
        if line.startswith("+"):
            removals.append("-" + line[1:])
            last, new = removals, new - 1
            continue
        out += [*removals, *additions, line]
        removals, additions = [], []
        last, old, new = out, old - 1, new - 1
    return [*out, *removals, *additions], index


def _reverse_header(header: list[str]) -> list[str]:
    """Modes, names and blob ids exchanged, in the order that git expects."""
    exchanged = []
    for line in header:
        index = _INDEX.fullmatch(line)
        if index:
            line = f"index {index[2]}..{index[1]}{index[3]}"
        elif line.startswith(("--- ", "+++ ")):
            sign, letter = ("+++", "b") if line[0] == "-" else ("---", "a")
            line = f"{sign} " + re.sub(r'^("?)[ab]/', rf"\1{letter}/", line[4:])
        else:
            for one, other in _OPPOSITES:
                if line.startswith(one):
                    line = other + line[len(one) :]
                    break
                if line.startswith(other):
                    line = one + line[len(other) :]
                    break
        exchanged.append(line)
    for first, second in (
        ("+++ ", "--- "),
        ("new mode ", "old mode "),
        ("rename to ", "rename from "),
    ):
        for at in range(len(exchanged) - 1):
            if exchanged[at].startswith(first) and exchanged[at + 1].startswith(second):
                exchanged[at], exchanged[at + 1] = exchanged[at + 1], exchanged[at]
    return exchanged


def _ends_names(header: list[str]) -> bool:
    return any(line.startswith("+++ ") for line in header)
