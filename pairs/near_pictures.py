"""The nearest pictures of each picture: copies of one stand for nothing and hide nothing.

Were every file searched for, a picture stored twelve times would have only its own copies among
its ten nearest. So what turns out to be a copy is taken out, and whoever saw it looks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from contextrl.pairs.embedding_file import EmbeddingFile
from contextrl.pairs.neighbour_file import SearchFolder
from contextrl.pairs.neighbours import (
    Couples,
    Neighbours,
    approximate_neighbours,
    exact_neighbours,
)
from contextrl.pairs.pictures import Pictures
from contextrl.pairs.row_scan import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

logger = logging.getLogger(__name__)


def near_pictures(
    vectors: EmbeddingFile,
    pictures: Pictures,
    searches: SearchFolder,
    k: int,
    *,
    cells_probed: int | None,
    seed: int,
    on_progress: Progress,
) -> Couples:
    """Numbers are those of `pictures`, of which copies are joined by the way."""

    def search(numbers: Numbers, queries: Numbers) -> Neighbours:
        how = "exact" if cells_probed is None else f"{cells_probed} cells, seed {seed}"
        find: Callable[..., Neighbours] = exact_neighbours
        if cells_probed is not None:
            find = partial(approximate_neighbours, cells_probed=cells_probed, seed=seed)
        return find(
            vectors.vectors(),
            k,
            rows=numbers,
            queries=queries,
            saved=searches.file(vectors.digests(numbers), queries, k, how),
            on_progress=lambda done, total: on_progress("searched", done, total),
        )

    numbers = pictures.numbers()
    near = search(numbers, np.arange(len(numbers)))
    while True:
        found = near.couples()
        couples = Couples(numbers[found.first], numbers[found.second], found.cosines)
        joined = pictures.join_copies(couples)
        if not joined:
            return couples
        left = pictures.copies.leader[numbers] == numbers
        place = np.where(left, np.cumsum(left) - 1, -1)
        kept = near.numbers[left]
        mapped = np.where(kept >= 0, place[kept], -1)
        again = np.flatnonzero(((kept >= 0) & (mapped < 0)).any(axis=1))
        logger.info("%d pictures were copies; %d look again", joined, len(again))
        numbers = numbers[left]
        more = search(numbers, again)
        width = more.numbers.shape[1]
        near = Neighbours(mapped[:, :width], near.cosines[left][:, :width])
        near.numbers[again], near.cosines[again] = more.numbers, more.cosines
