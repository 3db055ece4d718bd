"""Scripted runs on made-up bugs: lines of a function are changed at random, the script mends them.

A few hundred real bugs are soon known by heart. Without end come lines that a word was changed in,
left out or added to, so that what is learned is to see which line is not as it should be and to
write it as it was. Up to `MOST_BUGS` in one function: more to learn from what is read once. Nothing
is run: the issue is that of a real bug of the same function, whose assertion says nothing here. No
task of reinforcement learning and no held-out one is among them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from contextrl.agents.prompting import PromptSet
from contextrl.agents.scripted import Replacement, one_line_replacement
from contextrl.agents.types import Trajectory
from contextrl.envs.types import Task
from contextrl.verl_ext.errors import ConfigError

MOST_BUGS = 3
"""As many edits as fit between a look and a submission in the five turns of the tiny preset."""
_NUMBERED = re.compile(r"(\d+):(\s*)(\S.*)")
_WORD = re.compile(r"[A-Za-z_]\w*")
_PIECE = re.compile(r"\s+|[A-Za-z_]\w*|\d+|[^\sA-Za-z_0-9]+")
_SYMBOLS = ("==", "!=", "<", ">", "<=", ">=", "+", "-", "*", "//", "%", "=", "(", ")", "[", "]")
_WORDS = ("not", "and", "or", "is", "in", "None", "True", "False", "0", "1", "2")


@dataclass(frozen=True, slots=True)
class _Function:
    """A function as it should be, and a run that looked at it."""

    run: Trajectory
    lines: tuple[str, ...]
    """Of the run's first observation, the real bug mended."""
    fix: Replacement


class BugMaker:
    """Draws runs, each with a bug of its own."""

    def __init__(
        self, tasks: Sequence[Task], runs: Sequence[Trajectory], prompts: PromptSet, *, seed: int
    ) -> None:
        """`runs[i]` is the scripted run of `tasks[i]`. Raises `ConfigError` if none can be used."""
        self._rng = random.Random(seed)
        self._prompts = prompts
        found = (_function(task, run) for task, run in zip(tasks, runs, strict=True))
        self._functions = [function for function in found if function is not None]
        if not self._functions:
            raise ConfigError("expected tasks whose fix replaces one line, found none")
        lines = {line for function in self._functions for line in function.lines}
        self._vocabulary = sorted({word for line in lines for word in _WORD.findall(line)})

    def draw(self) -> Trajectory:
        while True:
            function = self._rng.choice(self._functions)
            shown, fixes = self._broken(function, self._rng.randint(1, MOST_BUGS))
            if fixes:
                return self._run(function.run, shown, fixes)

    def _broken(self, function: _Function, n: int) -> tuple[list[str], list[Replacement]]:
        """The lines with at most `n` of them changed, and what mends each."""
        shown, fixes = [*function.lines], []
        for at in sorted(self._rng.sample(range(len(shown)), min(n, len(shown)))):
            line = _NUMBERED.fullmatch(shown[at])
            broken = self._changed(line[3]) if line else ""
            if line is not None and broken not in ("", line[3]):
                shown[at] = f"{line[1]}:{line[2]}{broken}"
                fixes.append(replace(function.fix, line=int(line[1]), text=line[2] + line[3]))
        return shown, fixes

    def _run(self, run: Trajectory, shown: list[str], fixes: Sequence[Replacement]) -> Trajectory:
        look, edit, *rest = run.steps
        edits = [
            edit.model_copy(
                update={
                    "text": self._prompts.render_reply(fix.edit_command, thought=fix.thought),
                    "command": fix.edit_command,
                }
            )
            for fix in fixes
        ]
        look = look.model_copy(update={"observation": "\n".join(shown)})
        return run.model_copy(update={"steps": (look, *edits, *rest)})

    def _changed(self, text: str) -> str:
        """`text` with one piece replaced, left out, doubled by another, or moved."""
        pieces = _PIECE.findall(text)
        places = [i for i, piece in enumerate(pieces) if not piece.isspace()]
        at, kind = self._rng.choice(places), self._rng.random()
        if kind < 0.5:
            pieces[at] = self._other(pieces[at])
        elif kind < 0.75 and len(places) > 1:
            del pieces[at]
        elif kind < 0.9:
            pieces.insert(at, self._other("a") + " ")
        else:
            other = self._rng.choice(places)
            pieces[at], pieces[other] = pieces[other], pieces[at]
        return "".join(pieces).strip()

    def _other(self, piece: str) -> str:
        if piece[0].isalpha() or piece[0] == "_":
            return self._rng.choice(self._rng.choice((self._vocabulary, _WORDS)))
        return self._rng.choice(_WORDS[-3:] if piece.isdigit() else _SYMBOLS)


def _function(task: Task, run: Trajectory) -> _Function | None:
    """None where the fix is no replacement of one line that the run saw."""
    fix = one_line_replacement(task)
    if fix is None or len(run.steps) < 2 or run.steps[1].command != fix.edit_command:
        return None
    lines = run.steps[0].observation.split("\n")
    mended = [f"{fix.line}:{fix.text}" if _is_line(line, fix.line) else line for line in lines]
    if mended == lines:
        return None
    return _Function(run, tuple(mended), fix)


def _is_line(line: str, number: int) -> bool:
    return line.partition(":")[0] == str(number)
