"""Pictures and what is asked about them: copies of one are one, and each question counts once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from contextrl.pairs.duplicates import Copies
from contextrl.pairs.embedding_file import SeenImage
from contextrl.pairs.row_scan import ScannedRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contextrl.pairs.neighbours import Couples


@dataclass(frozen=True, slots=True)
class Asked:
    """One question about a picture."""

    row: ScannedRow
    """That stands for all with this question: the choice depends on seed and row ids alone."""
    answers: tuple[str, ...]
    """What any of them answers, case folded, each once."""
    n_rows: int


class Pictures:
    """Images by number; each picture goes by the number of the first image that shows it."""

    def __init__(
        self,
        rows: Iterable[ScannedRow],
        images: Sequence[SeenImage],
        thumbs: NDArray[np.uint8],
        seed: int,
    ) -> None:
        """Images with the same pixels are one picture from the start."""
        self._images = images
        self._seed = seed
        self.copies = Copies(np.array([image.look for image in images], np.uint64), thumbs)
        self._asked: dict[int, list[Asked]] = {}
        self._names: dict[int, bytes] = {}
        """Of pictures with copies: the least of theirs."""
        leaders: dict[bytes, int] = {}
        kept = sorted(rows, key=lambda row: row.image)
        for number, image in enumerate(images):
            self.copies.leader[number] = leaders.setdefault(image.pixel_digest, number)
        self.n_images = len({row.image for row in kept})
        for picture, group in groupby(
            sorted(kept, key=lambda row: int(self.copies.leader[row.image])),
            key=lambda row: int(self.copies.leader[row.image]),
        ):
            self._asked[picture] = self._merged(
                [Asked(row, (row.answer.casefold(),), 1) for row in group]
            )

    def numbers(self) -> NDArray[np.int64]:
        return np.array(sorted(self._asked), np.int64)

    def asked(self, picture: int) -> Sequence[Asked]:
        """By question."""
        return self._asked[picture]

    def name(self, picture: int) -> bytes:
        """What the order of couples depends on: the same whatever order the rows came in."""
        return self._names.get(picture, self._images[picture].pixel_digest)

    def join_copies(self, near: Couples) -> int:
        """How many pictures were found to be copies of others, and joined to them."""
        return self.copies.find_among(near.first, near.second, self._agree)

    def _agree(self, first: int, second: int) -> bool:
        """No question is answered by both, and differently; then `first` has the rows of both."""
        for one, other in in_common(self._asked[first], self._asked[second]):
            if set(one.answers).isdisjoint(other.answers):
                return False
        self._names[first] = min(self.name(first), self.name(second))
        self._asked[first] = self._merged([*self._asked[first], *self._asked.pop(second)])
        return True

    def _merged(self, asked: Sequence[Asked]) -> list[Asked]:
        merged = []
        ordered = sorted(asked, key=lambda each: each.row.question)
        for _, group in groupby(ordered, key=lambda each: each.row.question):
            alike = list(group)
            if len(alike) == 1:
                merged += alike
                continue
            merged.append(
                Asked(
                    min((each.row for each in alike), key=self._rank),
                    tuple(sorted({answer for each in alike for answer in each.answers})),
                    sum(each.n_rows for each in alike),
                )
            )
        return merged

    def _rank(self, row: ScannedRow) -> tuple[bytes, bytes]:
        told = f"{self._seed}\0{row.set_name}\0{row.row_id}\0{row.answer}"
        digest = hashlib.sha256(told.encode("utf-8", "replace")).digest()
        return digest, self._images[row.image].file_digest


def in_common(first: Sequence[Asked], second: Sequence[Asked]) -> Iterator[tuple[Asked, Asked]]:
    """Of two pictures: what is asked about both."""
    if len(first) == len(second) == 1:  # by far the most
        if first[0].row.question == second[0].row.question:
            yield first[0], second[0]
        return
    known = {each.row.question: each for each in first}
    for each in second:
        other = known.get(each.row.question)
        if other is not None:
            yield other, each
