"""Prompts that the generation engine has computed lately: GRPO samples each of them several times.

The second reply to a prompt costs no forward pass: keys and values are copied from the row of the
first, and the logits after the prompt were kept.

Shape letters: V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contextrl.verl_ext.vision import VisionInputs

KEPT = 64


@dataclass(frozen=True, slots=True)
class KnownPrompt:
    row: int
    """The cache row whose first keys and values are the prompt's."""
    logits_1_V: Tensor
    vision: VisionInputs | None


class PromptMemory:
    """The engine says whenever a row's keys and values change."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, ...], KnownPrompt] = OrderedDict()

    def find(self, prompt_ids: Sequence[int], vision: VisionInputs | None) -> KnownPrompt | None:
        """The same tokens and the same images."""
        known = self._known.get(tuple(prompt_ids))
        return known if known is not None and _same_images(known.vision, vision) else None

    def note(self, prompt_ids: Sequence[int], known: KnownPrompt) -> None:
        self._known[tuple(prompt_ids)] = known
        while len(self._known) > KEPT:
            self._known.popitem(last=False)

    def forget_row(self, row: int, *, beyond: int = 0) -> None:
        """From position `beyond` on the row holds something else."""
        gone = [
            prompt
            for prompt, known in self._known.items()
            if known.row == row and len(prompt) > beyond
        ]
        for prompt in gone:
            del self._known[prompt]

    def clear(self) -> None:
        self._known.clear()


def _same_images(one: VisionInputs | None, other: VisionInputs | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(
        left is right or (left is not None and right is not None and torch.equal(left, right))
        for left, right in (
            (one.pixel_values, other.pixel_values),
            (one.grid_thw, other.grid_thw),
        )
    )
