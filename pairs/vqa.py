"""Rows of the released multimodal data: images, a problem with `<image>` marks, an answer."""

from __future__ import annotations

from contextrl.envs.types import Record
from contextrl.pairs.errors import PairFileError
from contextrl.pairs.render_images import CLOSING
from contextrl.pairs.types import Letter, Order, RenderedPair


class VQARow(Record):
    """One question about images. A row of several images with the answer A or B is a pair."""

    row_id: str
    problem: str
    """One `<image>` for each image, in order."""
    images: tuple[bytes, ...]
    """Encoded files, as they were read: hostile until `pairs.images` has opened them."""
    answer: str
    source: str = ""
    """Of which set in a mixed file the row is, where it says so."""

    @property
    def is_pair(self) -> bool:
        return is_pair(len(self.images), self.answer)


class ReleasedImagePair(Record):
    """A released row of two images. Its option order is fixed: its problem may name the options."""

    row: VQARow

    @property
    def pair_id(self) -> str:
        return self.row.row_id

    def rendered(self, prefill: str = "") -> RenderedPair:
        correct = letter(self.row)
        problem = self.row.problem.strip()
        return RenderedPair(
            pair_id=self.pair_id,
            order=Order.POSITIVE_FIRST if correct == "A" else Order.POSITIVE_SECOND,
            prompt=problem if problem.endswith(CLOSING) else problem + CLOSING,
            prefill=prefill,
            correct=correct,
            images=self.row.images,
        )


def is_pair(n_images: int, answer: str) -> bool:
    return n_images > 1 and answer.strip() in ("A", "B")


def letter(row: VQARow) -> Letter:
    """Raises `PairFileError` for a row that is no pair."""
    if not row.is_pair:
        raise PairFileError(
            f"{row.row_id}: expected several images and the answer A or B, found "
            f"{len(row.images)} and {row.answer[:20]!r}"
        )
    return "A" if row.answer.strip() == "A" else "B"
