"""Scripted runs -> weighted token sequences for the warm-up.

Token ids come from the codec that the rollout itself uses, so what the policy is warmed up on
is, id for id, what it will meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contextrl.agents.codec import ChatCodec
from contextrl.agents.types import Trajectory


@dataclass(frozen=True, slots=True)
class SFTSequence:
    token_ids: tuple[int, ...]
    weights: tuple[float, ...]
    """Loss weight of predicting each token; that of the first is unused."""


def from_run(trajectory: Trajectory, codec: ChatCodec) -> SFTSequence:
    """A whole episode: weight 1 on the agent's replies, 0 on what it read."""
    n_prompt = len(trajectory.messages) - sum(
        1 + bool(step.observation) for step in trajectory.steps
    )
    prompt = codec.prompt_ids(trajectory.messages[:n_prompt])
    token_ids, weights = list(prompt), [0.0] * len(prompt)
    for step in trajectory.steps:
        reply = codec.reply_ids(step.text)
        token_ids += reply
        weights += [1.0] * len(reply)
        if step.observation:
            seen = codec.observation_ids(step.observation, ended=True)
            token_ids += seen
            weights += [0.0] * len(seen)
    return SFTSequence(tuple(token_ids), tuple(weights))


def within(sequences: Sequence[SFTSequence], max_tokens: int) -> list[SFTSequence]:
    """Those that fit the context; the rest cannot occur in a rollout either."""
    return [sequence for sequence in sequences if len(sequence.token_ids) <= max_tokens]
