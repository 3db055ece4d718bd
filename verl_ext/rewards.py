"""The reward of the multimodal recipe: 0.9 for the right answer, 0.1 for the release's format.

Also veRL's reward function from outside: `reward.custom_reward_function.path=<this file>`,
`name=compute_score`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from contextrl.verl_ext.answers import same_answer

FORMAT_WEIGHT = 0.1
THINK_END = re.compile(r"<\s*/\s*think\s*>")
ANSWER = re.compile(r"<\s*answer\s*>(.*?)<\s*/\s*answer\s*>", re.DOTALL)
BOXED = "\\boxed"
LONGEST_ANSWER = 1000
"""Characters; nobody's answer is longer, and a longer one could be meant to hang a parser."""


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
    tagged: list[str] = ANSWER.findall(reply)
    found = tagged[-1] if tagged else last_boxed(reply)
    if found is None or len(found) > LONGEST_ANSWER:
        return None
    inner = last_boxed(found)
    return (found if inner is None else inner).strip()


def last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{...}`, braces within it matched; None without one."""
    start = text.rfind(BOXED)
    opening = text.find("{", start)
    if start < 0 or text[start + len(BOXED) : opening].strip():
        return None
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[opening + 1 : at]
    return None


def well_formed(reply: str) -> bool:
    """`<think>...</think>`, then an answer in tags or a box. The chat template of a thinking model
    may have opened the thought already, so its opening tag is not asked for (nor is it there)."""
    ends = list(THINK_END.finditer(reply))
    if not ends:
        return False
    after = reply[ends[0].end() :]
    return ANSWER.search(after) is not None or last_boxed(after) is not None


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **_: Any
) -> dict[str, float]:
    """veRL's signature for a reward function of one's own."""
    found = score(solution_str, ground_truth)
    return {"score": found.reward, "acc": found.accuracy, "format": found.format}
