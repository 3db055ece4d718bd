"""When are two observations of one command the same? Equal after these rules, in this order.

1. Terminal escapes and carriage returns are dropped, and spaces at the ends of lines.
2. What differs between two honest runs gets a name: addresses, durations, dates, temporary paths,
   process ids, ids of commits that carry a date, hash seeds, container names.
3. Where an excerpt was cut, the line that holds the cut counts only up to it: a duration of one
   more digit moves it.
4. Two orders that nothing promises do not count: that of the members of a printed set, and that
   of lines if the command walks folders (`find`, `grep -r`, `rg`, `ls -U`, ...) and does not sort.
5. What only time decides is left out: the tests that `pytest --durations` lists, timeit's warning.

Each rule needs its context (a unit, a prefix, a path): a bare number is never volatile. Output is
hostile: no pattern may have two ways to read the same run of characters.
"""

from __future__ import annotations

import re
from enum import StrEnum

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?"
_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?"
_ZONE = r"(?: ?(?:Z|[+-]\d{2}:?\d{2}))?"
_UNIT = r"(?:[num\u00b5\u03bc]?s|[num]?secs?|seconds?)"
_TEMPORARY = r"(?:tmp|pytest-of-|pip-|build|ccache|xdist|hypothesis)"
_HEX = r"[0-9a-f]{7,40}"

VOLATILE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), name)
    for pattern, name in (
        (r"\b0x[0-9a-fA-F]{6,16}\b", "<ADDRESS>"),
        (r"(?<=\.\.\.)x?[0-9a-f]{4,12}(?=>)", "<ADDRESS>"),  # its end, where pytest shortens
        # Dates: ISO 8601; those of `date`, `ls -l` and `git log`; a time of day alone.
        (rf"\b{_DAY}\d{{4}}-\d{{2}}-\d{{2}}(?:[T ]{_CLOCK})?{_ZONE}", "<DATE>"),
        (
            rf"\b{_DAY}(?:\d{{1,2}} )?{_MONTH} +\d{{1,4}}(?: +{_CLOCK})?(?: [A-Z]{{3,4}})?"
            rf"(?: +\d{{4}})?{_ZONE}\b",
            "<DATE>",
        ),
        # Durations: `time`; pytest, unittest, timeit with a unit.
        (r"\b\d+m ?\d+(?:\.\d+)?s\b", "<DURATION>"),
        (
            rf"\b\d+(?:\.\d+)?(?:e-?\d+)? ?{_UNIT}\b(?: \(\d+:\d{{2}}:\d{{2}}\))?",
            "<DURATION>",
        ),
        # Which tests are slowest is a matter of time as well (`pytest --durations`), and so is
        # whether `timeit` finds its clock unsteady.
        (r"^<DURATION> (?:call|setup|teardown) .*\n?", ""),
        (r"(?:^\n)?^\(\d+ durations? < .* hidden\..*\n?", ""),
        (r"^:0: UserWarning: The test results are likely unreliable\..*\n?", ""),
        # A row of `ps aux`: pid, load, memory, state and start. The command stays.
        (
            r"^(\S{1,32}) +\d+ +\d+\.\d +\d+\.\d +\d+ +\d+ (\S+) +\S+ +\S+ +\d+:\d\d ",
            r"\1 <PROCESS> \2 ",
        ),
        (r"\b\d{1,2}:\d{2}:\d{2}(?:[.,]\d+)?\b", "<CLOCK>"),
        (
            r"^=+ ([^=\n]{0,200}<DURATION>[^=\n]{0,200}) =+$",
            r"= \1 =",
        ),  # a frame of fixed width gives way to it
        (rf"/(?:var/)?tmp/{_TEMPORARY}[\w.+-]*(?:/pytest-(?:\d+|current))?", "<TMP>"),
        # Process ids: of /proc, with a word before, of a shell's jobs, of its notes about deaths.
        (r"/proc/\d+\b", "/proc/<PID>"),
        (r"(?i)\b(pid|ppid|process(?: id)?)([ =:]+)\d+\b", r"\1\2<PID>"),
        (r"^\[(\d+)\]( {0,4}[+-]? {0,4})\d{2,}\b", r"[\1]\2<PID>"),
        (
            r"(line )\d+(: +)\d+ (?=Killed|Terminated|Segmentation|Aborted|Hangup)",
            r"\1<N>\2<PID> ",
        ),
        # The shell is ours, and counts every line that it read, those of our own set-up included.
        (r"^(bash: (?:eval: )?line )\d+:", r"\1<N>:"),
        # Commits carry their date: `git commit`, `git log`, `git reset --hard`.
        (rf"^(\[[\w/. -]+(?: \(root-commit\))? ){_HEX}\]", r"\1<COMMIT>]"),
        (rf"^(commit |HEAD is now at |Merge: ){_HEX}\b", r"\1<COMMIT>"),
        (r"\b1[6-9]\d{8}\.\d{1,9}\b", "<EPOCH>"),  # time.time()
        (r"\b\d+ (loops?, best of)", r"<N> \1"),
        (r"(^|^Linux |@|'HOSTNAME': ')[0-9a-f]{12}(?=$| |:|')", r"\1<HOST>"),  # a container's name
        (r"(?i)\b((?:random|hash)[ _-]?seed)([ =:]+)\d+", r"\1\2<SEED>"),
        # The frame that our own prompts put around an observation.
        (r"\b\d+ characters left out", "<N> characters left out"),
        (r"\bafter \d+ s\b", "after <DURATION>"),
    )
)

SET_DISPLAY = re.compile(r"\{([^{}:,\n]+(?:,[^{}:,\n]+)+)\}")
"""A set as Python prints it: its order depends on the seed of string hashes."""

CUT = re.compile(r"\n?\(cut\)\s*\Z|\n</output_head>")
"""Where the two prompt sets say that the text before was cut."""

UNORDERED = re.compile(
    r"(?:^|[|;&(]\s*|\bxargs\s+(?:-\S+\s+)*)"
    r"(?:find\b|rg\b|ag\b|grep\s+(?:-\S+\s+)*-\w*[rR]|git\s+grep|ls\s+(?:-\S+\s+)*-\w*[fU]|du\b|"
    r"tree\s+-\w*U|ps\b|env\b|printenv\b|set\b\s*(?:$|\|))",
    re.MULTILINE,
)
ONELINE = re.compile(r"\bgit\b[^\n|;&]{0,80}\blog\b[^\n|;&]{0,80}--oneline\b")
COMMIT_LINE = re.compile(rf"^([*|/\\ ]{{0,12}}){_HEX}(?= )", re.MULTILINE)
SORTS = re.compile(r"\|\s*sort\b")


class Match(StrEnum):
    """How a repeated observation equals the recorded one."""

    EXACT = "exact"
    NORMALISED = "normalised"
    REORDERED = "reordered"
    NONE = "none"


def normalise(text: str) -> str:
    """`text` with rules 1 and 2 applied; applying them again changes nothing."""
    text = "\n".join(line.rstrip() for line in ESCAPES.sub("", text).split("\n"))
    for pattern, name in VOLATILE:
        text = pattern.sub(name, text)
    return SET_DISPLAY.sub(_sorted_set, text)


def compare(recorded: str, repeated: str, *, command: str) -> Match:
    """The weakest rule that is needed to make the two equal."""
    if recorded == repeated:
        return Match.EXACT
    first, second = _of_command(command, normalise(recorded), normalise(repeated))
    if first == second or _equal_up_to_cuts(first, second):
        return Match.NORMALISED
    if _lines(first) == _lines(second) and UNORDERED.search(command) and not SORTS.search(command):
        return Match.REORDERED
    return Match.NONE


def _of_command(command: str, *texts: str) -> tuple[str, ...]:
    """With the rules applied that only the command allows."""
    if ONELINE.search(command):
        texts = tuple(COMMIT_LINE.sub(r"\1<COMMIT>", text) for text in texts)
    return texts


def _lines(text: str) -> list[str]:
    """In a fixed order. What grep says on stderr begins in a write of its own, and what others
    print may come between that and the rest."""
    return sorted(line.removeprefix("grep: ") for line in text.split("\n"))


def first_difference(recorded: str, repeated: str) -> tuple[str, str]:
    """The first lines that differ after normalising; empty where a side has ended."""
    first, second = normalise(recorded).split("\n"), normalise(repeated).split("\n")
    for index in range(max(len(first), len(second))):
        ours = first[index] if index < len(first) else ""
        theirs = second[index] if index < len(second) else ""
        if ours != theirs:
            return ours, theirs
    return "", ""


def _sorted_set(match: re.Match[str]) -> str:
    return "{" + ", ".join(sorted(map(str.strip, match[1].split(",")))) + "}"


def _equal_up_to_cuts(first: str, second: str) -> bool:
    """Both were cut, and what was kept agrees as far as both go, but for the line of the cut."""
    cuts = CUT.search(first), CUT.search(second)
    if cuts[0] is None or cuts[1] is None:
        return False
    heads = first[: cuts[0].start()], second[: cuts[1].start()]
    *lines, last = heads[0].split("\n")
    *others, other = heads[1].split("\n")
    if lines != others or not (last.startswith(other) or other.startswith(last)):
        return False
    tails = first[cuts[0].end() :], second[cuts[1].end() :]
    # Of the tail the first line may be torn as well; from its end the two must agree.
    return _after_first_line(tails[0]) == _after_first_line(tails[1])


def _after_first_line(text: str) -> str:
    _, marker, tail = text.partition("<output_tail>\n")
    return tail.partition("\n")[2] if marker else ""
