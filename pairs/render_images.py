"""Pair of images + order -> the two-option prompt. The ONE source for the probe and for training.

As for trajectories, both contexts come first and the question last. The closing sentence is the
release's; what stands before it there is written out in each row of its data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.types import ImagePair, ImageRef, Order, RenderedPair

CLOSING = "\nOutput A or B directly."


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePairStyle:
    """Every word of the prompt that is ours."""

    name: str
    opening: str
    option: str
    """Holds `{letter}` and `{image}`."""
    ask: str
    """Holds `{question}` and `{answer}`."""


RELEASED_IMAGES = ImagePairStyle(
    name="released",
    opening="Below are two images, option A and option B, a question and an answer.\n",
    option="Option {letter}: {image}\n",
    ask="Question: {question}\nAnswer: {answer}\nWhich image supports this answer?",
)
COMPACT_IMAGES = ImagePairStyle(
    name="compact", opening="", option="{letter}:{image}\n", ask="{question} {answer}"
)
IMAGE_STYLES = {style.name: style for style in (RELEASED_IMAGES, COMPACT_IMAGES)}


def render_images(
    pair: ImagePair,
    order: Order,
    style: ImagePairStyle,
    read: Callable[[ImageRef], bytes],
    *,
    prefill: str = "",
) -> RenderedPair:
    """The prompt of `pair`; `read` gives the bytes of an image, e.g. `ImageStore.read`.

    A question that holds an image mark of its own shows it as text.
    """
    refs = [pair.positive.image, pair.negative.image]
    if order is Order.POSITIVE_SECOND:
        refs.reverse()
    options = "".join(style.option.format(letter=letter, image=IMAGE_MARK) for letter in "AB")
    question, answer = (_without_marks(text) for text in (pair.question, pair.answer))
    return RenderedPair(
        pair_id=pair.pair_id,
        order=order,
        prompt=style.opening
        + options
        + style.ask.format(question=question, answer=answer)
        + CLOSING,
        prefill=prefill,
        correct=order.correct,
        images=tuple(read(ref) for ref in refs),
    )


def _without_marks(text: str) -> str:
    return text.replace(IMAGE_MARK, "< image>")
