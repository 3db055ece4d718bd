"""The reward of the multimodal recipe: 0.9 for the right answer, 0.1 for the release's format.

Also veRL's reward function from outside: `reward.custom_reward_function.path=<this file>`,
`name=compute_score`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from contextrl.verl_ext.answers import LONGEST_ANSWER, same_answer

FORMAT_WEIGHT = 0.1
THINK_END = re.compile(r"<\s*/\s*think\s*>")
TAG = re.compile(r"<\s*answer\s*>")
TAG_END = re.compile(r"<\s*/\s*answer\s*>")
TOKEN = re.compile(
    r"(?P<box>\\boxed\s*\{)|\\boxed\s+(?P<bare>[A-J]|-?\d+(?:\.\d+)?)(?!\w)|\\.|[{}]", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Score:
    accuracy: float
    """1 when the answer given is the expected one."""
    format: float
    """1 when the reply thinks first and then answers in `<answer>` tags or a `\\boxed`."""

    @property
    def reward(self) -> float:
        return (1 - FORMAT_WEIGHT) * self.accuracy + FORMAT_WEIGHT * self.format


def score(reply: str, expected: str) -> Score:
    """A reply without a marked answer has accuracy 0, whatever else it says, as in the release."""
    given = given_answer(reply)
    right = given is not None and same_answer(given, expected)
    return Score(accuracy=float(right), format=float(well_formed(reply)))


def given_answer(reply: str) -> str | None:
    """What stands in the last `<answer>` tags, else in the last `\\boxed`; None without either."""
    tagged = last_tagged(reply)
    found = last_boxed(reply) if tagged is None else (last_boxed(tagged) or tagged)
    return None if found is None or len(found) > LONGEST_ANSWER else found.strip()


def last_tagged(text: str) -> str | None:
    """What stands in the last answer tags that are closed; None without any."""
    ends = list(TAG_END.finditer(text))
    starts = list(TAG.finditer(text, 0, ends[-1].start())) if ends else []
    if not starts:
        return None
    start = starts[-1].end()
    return text[start : next(end.start() for end in ends if end.start() >= start)]


def last_boxed(text: str) -> str | None:
    """The content of the last closed `\\boxed{...}` that has any, or the letter or number of a
    later `\\boxed B`; None without either. One pass, however many braces a reply opens."""
    opened: list[int | None] = []  # where the content of each open box begins; None for braces
    last, found = -1, None
    for token in TOKEN.finditer(text):
        if token["bare"]:
            last, found = token.start(), token["bare"]
        elif token["box"]:
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            content = text[start : token.start()] if start is not None else ""
            if start is not None and start > last and content.strip():
                last, found = start, content
    return found


def well_formed(reply: str) -> bool:
    """`<think>...</think>`, then an answer in tags or a box. The chat template of a thinking model
    may have opened the thought already, so its opening tag is not asked for (nor is it there)."""
    ends = list(THINK_END.finditer(reply))
    if not ends:
        return False
    after = reply[ends[0].end() :]
    return last_tagged(after) is not None or last_boxed(after) is not None


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any
) -> dict[str, float]:
    """veRL's signature for a reward function of one's own."""
    found = score(solution_str, ground_truth)
    return {"score": found.reward, "acc": found.accuracy, "format": found.format}
