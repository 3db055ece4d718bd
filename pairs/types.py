"""The nouns of contrast: (Q, A, C+, C-) of the paper, section 3, and the prompt made of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from contextrl.agents.types import Message
from contextrl.envs.types import Record

SCHEMA_VERSION = 1

Letter = Literal["A", "B"]


class Instance(Record):
    """What a run worked on, as far as pairs ask: a `Task` without its image and tests."""

    task_id: str
    repo: str
    base_commit: str
    """Empty when nothing says: such a run pairs with no other."""
    problem: str
    gold_patch: str
    """The reference fix against the start state; empty when nothing tells."""


class TrajectoryContext(Record):
    """One side of an agentic pair: a run in which the patch can no longer be read."""

    kind: Literal["trajectory"] = "trajectory"
    task_id: str
    trajectory_id: str
    question: str
    """The issue this run worked on."""
    messages: tuple[Message, ...]
    """Masked; the system prompt and the task prompt are left out."""
    decisive: tuple[str, ...] = ()
    """Lines of the observations that decide the pair; trimming to a budget keeps them."""


class Provenance(Record):
    """Where a pair came from, enough to find it again and to split without leaking."""

    repo: str
    base_commit: str
    file: str
    function: str
    function_from: Literal["syntax-tree", "hunk", "hunk-header", "view", "unknown"] = "unknown"
    """How `function` was found."""
    answer_from: Literal["submission", "gold", "unknown"] = "unknown"
    """`submission` when the positive run resolved its task, else the task's reference fix."""
    issue_similarity: float | None = None
    """Cosine of the two issues' word sets (related.py); None where it was not asked."""
    other_commit: str = ""
    """The negative's base commit where it is not `base_commit`: fit to look at, not to train on."""
    miner: str
    """Name and version of the rule that made the pair."""


class Pair(Record):
    """`positive` is the context in which `answer` was produced; `negative` is its near twin."""

    schema_version: int = SCHEMA_VERSION
    pair_id: str
    question: str
    """What is asked of both contexts. Never the positive run's own issue: that names the label."""
    answer: str
    """The patch, as a unified diff."""
    positive: TrajectoryContext
    negative: TrajectoryContext
    provenance: Provenance


class Order(StrEnum):
    """Which option the supporting context is shown as."""

    POSITIVE_FIRST = "positive-first"
    POSITIVE_SECOND = "positive-second"

    @property
    def correct(self) -> Letter:
        return "A" if self is Order.POSITIVE_FIRST else "B"


class RenderedPair(Record):
    """A two-option prompt. The scored position is the one after `prefill`."""

    pair_id: str
    order: Order
    prompt: str
    """The one user message."""
    prefill: str
    """What the assistant's message begins with before the letter; may be empty."""
    correct: Letter
    images: tuple[bytes, ...] = ()
    """Encoded image files, one for each `<image>` of the prompt; empty for a prompt of text."""
