"""The nouns of contrast: (Q, A, C+, C-) of the paper, section 3, and the prompt made of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

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


class Box(Record):
    """A rectangle in pixels from the top left corner; `right` and `bottom` lie outside of it."""

    left: int = Field(ge=0)
    top: int = Field(ge=0)
    right: int
    bottom: int

    @model_validator(mode="after")
    def _holds_a_pixel(self) -> Self:
        if self.right <= self.left or self.bottom <= self.top:
            raise ValueError("expected a box with at least one pixel")
        return self


class ImageRef(Record):
    """An image file by its content; `images.py` keeps the files beside the pairs."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file's bytes."""
    format: Literal["bmp", "gif", "jpeg", "png", "tiff", "webp"]
    width: int = Field(gt=0)
    """In pixels, as the image is shown: after its EXIF orientation."""
    height: int = Field(gt=0)


class ImageContext(Record):
    """One side of a visual pair."""

    kind: Literal["image"] = "image"
    image: ImageRef
    answer: str
    """What is true of this image; the positive's is the pair's answer."""
    box: Box | None = None
    """The decisive region, where it is known."""


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


class ImageProvenance(Record):
    """Where a pair of images came from, enough to find it again and to split without leaking."""

    source: str
    """The family of scenes, or the data set."""
    group: str
    """Pairs of different groups have no image in common: what to hold out by."""
    positive_id: str = ""
    """Row of the source, where there is one."""
    negative_id: str = ""
    similarity: float | None = None
    """Cosine of the two images' embeddings; None where it was not asked."""
    negative_question: str = ""
    """What the negative's own row asks, where that is another question: a judge must read it."""
    seed: int | None = None
    """Of a scene: with `difficulty` it draws the pair again."""
    difficulty: float | None = None
    miner: str
    """Name and version of the rule that made the pair."""


class TrajectoryPair(Record):
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


class ImagePair(Record):
    """`answer` is true of `positive` and not of its near twin."""

    schema_version: int = SCHEMA_VERSION
    pair_id: str
    question: str
    answer: str
    positive: ImageContext
    negative: ImageContext
    provenance: ImageProvenance

    @model_validator(mode="after")
    def _decides(self) -> Self:
        if self.positive.image.sha256 == self.negative.image.sha256:
            raise ValueError("expected two images, found one twice")
        if self.answer != self.positive.answer or self.answer == self.negative.answer:
            raise ValueError("expected the answer to be the positive's and not the negative's")
        return self


Pair = TrajectoryPair | ImagePair
"""Whatever the contexts are, the loss never asks. Both sides of one pair are of one kind."""


def _kind(pair: Any) -> str:
    """Of a pair that may be a record already, or JSON; the oldest files do not say."""
    side = pair.get("positive") if isinstance(pair, dict) else getattr(pair, "positive", None)
    kind = side.get("kind") if isinstance(side, dict) else getattr(side, "kind", None)
    return str(kind or "trajectory")


PAIR: TypeAdapter[Pair] = TypeAdapter(
    Annotated[
        Annotated[TrajectoryPair, Tag("trajectory")] | Annotated[ImagePair, Tag("image")],
        Discriminator(_kind),
    ]
)
"""Reads either kind of pair, by the kind of its contexts."""


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
    spaced_letters: bool = False
    """` A` and ` B` count as answers too, the likelier form of each."""
