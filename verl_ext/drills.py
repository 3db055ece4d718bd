"""Reading drills: looking up, in two nearly identical contexts, which one holds a given line.

A model of a million parameters does not find this skill from one question a prompt: its letters
stay at 50% for as long as anyone waited. It finds it from many questions about the same two
contexts, a question that may be answered where it is asked, and stages that grow from two tokens to
changed lines of the package. The form is that of the selection prompt, a turn of the chat for each
question, so that choosing between real contexts is what the last stage leads to.

Contexts are random tokens or windows of the package with random changes. No bug, no fix and no pair
of the run is among them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contextrl.agents.types import Trajectory
from contextrl.pairs.encode import option_token_ids
from contextrl.pairs.render import PairPromptStyle
from contextrl.verl_ext.errors import ConfigError

_HOLE = "\x1f"
_NUMBERED = re.compile(r"(\d+:)(.*\S.*)")
MIN_LINES, MAX_LINES = 2, 16


@dataclass(frozen=True, slots=True)
class Drill:
    """A conversation of questions about the same two contexts."""

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    """Where a letter is asked for: the end of each quoted line and the end of each question."""
    second: tuple[bool, ...]
    """Per position: the answer is B."""


@dataclass(frozen=True, slots=True)
class _Question:
    removed: list[int]
    added: list[int] | None
    second: bool


Line = tuple[list[int], list[int]]
"""Token ids of its number and of its text."""


class DrillMaker:
    """Makes drills of every stage in the words of `style`, the form that pairs will have."""

    def __init__(
        self,
        tokenizer: Any,
        style: PairPromptStyle,
        views: Sequence[Sequence[str]],
        *,
        seed: int,
        n_stages: int | None = None,
    ) -> None:
        """`views`: lines such as `41:    return x`, as an agent sees a function. `n_stages`: only
        the first so many. Raises `ConfigError` if there are no views, or fewer stages."""
        if not views:
            raise ConfigError("expected functions that runs looked at, found none; check job.tasks")
        self._rng = random.Random(seed)

        def ids(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False))

        options = option_token_ids(tokenizer, style.prefill)
        self.letter_ids = (options.a[0], options.b[0])
        turn = [{"role": "user", "content": _HOLE}]
        answered = [*turn, {"role": "assistant", "content": "A"}, *turn]
        template = tokenizer.apply_chat_template
        before, after = template(turn, tokenize=False, add_generation_prompt=True).split(_HOLE)
        between = template(answered, tokenize=False).split(_HOLE)[1].removeprefix(after + "A")
        opening = f"{style.opening}\n" if style.opening else ""
        self._first = ids(f"{before}{opening}{style.option_header.format(letter='A')}\n")
        self._second = ids(f"{style.option_header.format(letter='B')}\n")
        self._line_end, self._plus = ids("\n"), ids("\n+")
        self._patch = ids(f"{style.answer_header}\n-")
        self._question_end = ids(f"\n{style.closing}{after}{style.prefill}")
        self._next_turn = ids(between)
        special = set(tokenizer.all_special_ids)
        self._vocabulary = [i for i in range(len(tokenizer)) if i not in special]
        self._views: list[list[Line]] = []
        for view in views:
            found = [match for line in view if (match := _NUMBERED.fullmatch(line))]
            self._views.append([(ids(match[1]), ids(match[2])) for match in found])
        self._words = [token for view in self._views for _, text in view for token in text]
        self.n_basic = 5
        """The first so many stages teach to look up at all."""
        self.stages: tuple[tuple[str, Callable[[], Drill]], ...] = (
            ("one token each", lambda: self._tokens(1, 2)),
            ("two tokens each", lambda: self._tokens(2, 4)),
            ("four tokens each", lambda: self._tokens(4, 8)),
            ("twelve tokens each", lambda: self._tokens(12, 10)),
            ("short lines", lambda: self._lines(3, 4)),
            ("three lines, one token apart", lambda: self._apart(3, 4)),
            ("more lines, one token apart", lambda: self._apart(self._rng.randint(3, 6), 4)),
            ("code, one strange token", lambda: self._code(4, strange=True)),
            ("more code, one strange token", lambda: self._code(7, strange=True)),
            ("both lines quoted", lambda: self._apart(self._rng.randint(3, 6), 4, quote_both=True)),
            ("code, both lines", lambda: self._code(7, strange=True, quote_both=True)),
            ("code, one word of code", lambda: self._code(7, strange=False, quote_both=True)),
        )
        if n_stages is not None:
            if not self.n_basic <= n_stages <= len(self.stages):
                raise ConfigError(
                    f"expected job.warmup.drill_stages from {self.n_basic} to {len(self.stages)}, "
                    f"found {n_stages}"
                )
            self.stages = self.stages[:n_stages]

    def _tokens(self, n: int, questions: int) -> Drill:
        tokens = self._rng.sample(self._vocabulary, 2 * n)
        asked = self._rng.sample(range(2 * n), questions)
        return self._drill(
            [tokens[:n]], [tokens[n:]], [_Question([tokens[i]], None, i >= n) for i in asked]
        )

    def _lines(self, n: int, width: int) -> Drill:
        both = [[self._random_line(width) for _ in range(n)] for _ in range(2)]
        questions = [
            _Question(line, None, second) for second in (False, True) for line in both[second]
        ]
        return self._drill(both[0], both[1], questions)

    def _apart(self, n: int, width: int, *, quote_both: bool = False) -> Drill:
        base = [self._random_line(width) for _ in range(n)]
        both, questions = [list(base), list(base)], []
        for i, line in enumerate(base):
            changed = list(line)
            changed[self._rng.randrange(width)] = self._rng.choice(self._vocabulary)
            second = self._rng.random() < 0.5
            both[second][i] = changed
            questions.append(_Question(changed, line if quote_both else None, second))
        return self._drill(both[0], both[1], questions)

    def _code(self, most_lines: int, *, strange: bool, quote_both: bool = False) -> Drill:
        """A window of a function; every line is changed in one of the two contexts."""
        view = self._rng.choice(self._views)
        n = min(len(view), self._rng.randint(3, most_lines))
        start = self._rng.randrange(len(view) - n + 1)
        window = view[start : start + n]
        both = [[number + text for number, text in window] for _ in range(2)]
        questions = []
        for i, (number, text) in enumerate(window):
            changed = self._changed(text, strange=strange)
            second = self._rng.random() < 0.5
            both[second][i] = number + changed
            questions.append(_Question(changed, text if quote_both else None, second))
        return self._drill(both[0], both[1], questions)

    def _changed(self, text: list[int], *, strange: bool) -> list[int]:
        changed = list(text)
        at = self._rng.randrange(1, len(text)) if len(text) > 1 else 0
        kind = 0.0 if strange else self._rng.random()
        token = self._rng.choice(self._vocabulary if strange else self._words)
        if kind < 0.6:
            changed[at] = token
        elif kind < 0.8 and len(text) > 2:
            del changed[at]
        else:
            changed.insert(at, token)
        return changed

    def _drill(
        self, first: list[list[int]], second: list[list[int]], questions: list[_Question]
    ) -> Drill:
        self._rng.shuffle(questions)
        ids, positions, answers = list(self._first), [], []
        for line in first:
            ids += line + self._line_end
        ids += self._second
        for line in second:
            ids += line + self._line_end
        for i, question in enumerate(questions):
            if i:
                ids += self._next_turn
            ids += self._patch + question.removed
            positions.append(len(ids) - 1)
            if question.added is not None:
                ids += self._plus + question.added
                positions.append(len(ids) - 1)
            ids += self._question_end
            positions.append(len(ids) - 1)
            ids.append(self.letter_ids[question.second])
            answers += [question.second] * (len(positions) - len(answers))
        return Drill(tuple(ids), tuple(positions), tuple(answers))

    def _random_line(self, width: int) -> list[int]:
        return [self._rng.choice(self._vocabulary) for _ in range(width)]


def function_views(runs: Sequence[Trajectory]) -> list[list[str]]:
    """One view per function that the runs looked at, as lines with their numbers."""
    views: dict[str, list[str]] = {}
    for run in runs:
        for step in run.steps:
            lines = [line for line in step.observation.split("\n") if _NUMBERED.fullmatch(line)]
            if MIN_LINES <= len(lines) <= MAX_LINES:
                views.setdefault(lines[0].partition(":")[2], lines)
    return list(views.values())
