"""Chosen couples of rows as pairs, each made when it is read: half a million would fill memory.

What is kept for all of them: a digest and a group a pair, a question a row, a reference an image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np

from contextrl.pairs.couple_choice import Chosen
from contextrl.pairs.encode import IMAGE_MARK
from contextrl.pairs.image_groups import components
from contextrl.pairs.images import ImageStore
from contextrl.pairs.row_scan import ScannedRow, Sources
from contextrl.pairs.types import ImageContext, ImagePair, ImageProvenance, ImageRef

MINER = "retrieval/2"
GROUP_CHARACTERS = 16


class RetrievedPairs(Sequence[ImagePair]):
    """Two pairs a couple, so that either image is right once; sorted by id.

    Every reading of a pair gives an equal one. Their images are in the store from the start.
    """

    def __init__(
        self,
        couples: Sequence[Chosen],
        sources: Sources,
        store: ImageStore,
        picture_name: Callable[[ScannedRow], str],
    ) -> None:
        """`picture_name` is equal for rows that show one picture: no two groups have one in common.

        Raises `ImageError` where an image no longer opens.
        """
        self._couples = couples
        self._questions: dict[tuple[int, int], str] = {}
        self._images: dict[int, ImageRef] = {}
        texts: dict[str, str] = {}
        for couple in couples:
            for row in (couple.first.row, couple.second.row):
                if (row.source, row.number) not in self._questions:
                    read = sources[row.source][1][row.number]
                    asked = read.problem.replace(IMAGE_MARK, " ").strip()
                    self._questions[row.source, row.number] = texts.setdefault(asked, asked)
                    if row.image not in self._images:
                        self._images[row.image] = store.put(read.images[0], row_id=row.row_id)
        roots = components(
            (picture_name(couple.first.row), picture_name(couple.second.row)) for couple in couples
        )
        self._group = {
            row.image: roots[picture_name(row)][:GROUP_CHARACTERS]
            for couple in couples
            for row in (couple.first.row, couple.second.row)
        }
        digests = np.array(
            [
                int(_digest(*map(self._name, sides))[:16], 16)
                for couple in couples
                for sides in _both_ways(couple)
            ],
            np.uint64,
        )
        self._order = np.argsort(digests, kind="stable")

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, at: int) -> ImagePair: ...
    @overload
    def __getitem__(self, at: slice) -> list[ImagePair]: ...
    def __getitem__(self, at: int | slice) -> ImagePair | list[ImagePair]:
        if isinstance(at, slice):
            return [self._pair(int(each)) for each in self._order[at]]
        return self._pair(int(self._order[at]))

    def __iter__(self) -> Iterator[ImagePair]:
        return (self._pair(int(each)) for each in self._order)

    def _pair(self, number: int) -> ImagePair:
        couple = self._couples[number // 2]
        here, there = _both_ways(couple)[number % 2]
        return ImagePair(
            pair_id=f"retrieved-{_digest(self._name(here), self._name(there))[:16]}",
            question=self._question(here),
            answer=here.answer,
            positive=self._context(here),
            negative=self._context(there),
            provenance=ImageProvenance(
                source=here.set_name,
                group=self._group[here.image],
                positive_id=here.row_id,
                negative_id=there.row_id,
                similarity=round(couple.cosine, 4),
                negative_question="" if here.question == there.question else self._question(there),
                miner=MINER,
            ),
        )

    def _question(self, row: ScannedRow) -> str:
        return self._questions[row.source, row.number]

    def _context(self, row: ScannedRow) -> ImageContext:
        return ImageContext(image=self._images[row.image], answer=row.answer)

    def _name(self, row: ScannedRow) -> str:
        """Row ids alone may repeat, in one file or over shards."""
        digest = self._images[row.image].sha256
        return f"{row.set_name}/{row.row_id}/{row.question.hex()}/{digest}"


def _both_ways(couple: Chosen) -> tuple[tuple[ScannedRow, ScannedRow], ...]:
    """Who is right, who is wrong."""
    first, second = couple.first.row, couple.second.row
    return (first, second), (second, first)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()
