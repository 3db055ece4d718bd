"""A bug report that a user could have written: what fails and how, never where or why."""

from __future__ import annotations

import re

from contextrl.envs.mutants import Mutant

MAX_CRASH_CHARS = 90


def issue_text(mutant: Mutant, test: str, crash: str) -> str:
    """Names the function, its file, one failing test and the first line of its error.

    Contains neither the buggy nor the correct line, no line number and no memory address.
    """
    name = test.split("::", 1)[-1].replace("::", ".")
    start = f"{mutant.function} in {mutant.file} is wrong.\n{name} fails"
    report = f"{start}: E {error}" if (error := _clean(crash)) else f"{start}."
    if _tells(report, mutant):
        kind = re.match(r"\w+(?=:)", error)
        report = f"{start}: E {kind[0]}" if kind else f"{start}."
    return report


def _clean(crash: str) -> str:
    line = crash.encode("ascii", "replace").decode().strip()
    line = re.sub(r"\s+at 0x[0-9a-fA-F]+", "", line)
    line = re.sub(r"(?<=\.\.\.)x?[0-9a-fA-F]+(?=>)", "", line)  # pytest cuts long names short
    line = re.sub(r"\s*\(?\bline \d+\)?", "", line)
    line = line.removeprefix("AssertionError: ") if "AssertionError: assert " in line else line
    line = re.sub(r"\s+", " ", line)
    return line if len(line) <= MAX_CRASH_CHARS else line[: MAX_CRASH_CHARS - 3].rstrip() + "..."


def _tells(report: str, mutant: Mutant) -> bool:
    squeezed = "".join(report.split())
    return any("".join(line.split()) in squeezed for line in (mutant.before, mutant.after))
