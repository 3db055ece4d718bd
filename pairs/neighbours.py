"""Nearest neighbours by cosine: exact in bounded memory, or faster with its recall stated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from contextrl.pairs.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contextrl.pairs.embedders import Vectors

BLOCK_BYTES = 256 << 20
"""Of vectors in memory at a time, on each side."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Row i: the k images nearest to image i, itself left out, nearest first.

    Numbers are places in the `rows` that were searched.
    """

    numbers: NDArray[np.int64]
    """[n, k]; -1 where there are fewer."""
    cosines: NDArray[np.float32]
    """[n, k]"""

    def couples(self, least: float) -> Iterator[tuple[int, int, float]]:
        """Each unordered couple with a cosine of at least `least`, once."""
        rows, places = np.nonzero((self.cosines >= least) & (self.numbers >= 0))
        others = self.numbers[rows, places]
        low, high = np.minimum(rows, others), np.maximum(rows, others)
        _, first = np.unique(low * len(self.numbers) + high, return_index=True)
        for at in first:
            cosine = float(self.cosines[rows[at], places[at]])
            yield int(low[at]), int(high[at]), min(cosine, 1.0)


def exact_neighbours(
    vectors: Vectors,
    k: int,
    *,
    rows: NDArray[np.int64] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Neighbours:
    """By faiss over blocks of queries against blocks of images, so that nothing else is in memory.

    Raises `SourceError` when faiss is not installed.
    """
    faiss = load_faiss()
    rows = np.arange(len(vectors)) if rows is None else rows
    total, width = len(rows), vectors.shape[1]
    k = min(k, max(total - 1, 0))
    numbers = np.full((total, k), -1, np.int64)
    cosines = np.full((total, k), -np.inf, np.float32)
    step = max(1, BLOCK_BYTES // (4 * max(width, 1)))
    for start in range(0, total if k else 0, step):
        queries = np.ascontiguousarray(vectors[rows[start : start + step]])
        best_cosines, best_numbers = _empty(len(queries), 0)
        for low in range(0, total, step):
            block = np.ascontiguousarray(vectors[rows[low : low + step]])
            near = min(k + 1, len(block))  # one more: the query itself is among them
            found, places = faiss.knn(queries, block, near, metric=faiss.METRIC_INNER_PRODUCT)
            best_cosines = np.concatenate([best_cosines, found], axis=1)
            best_numbers = np.concatenate([best_numbers, places + low], axis=1)
            best_cosines, best_numbers = _best(best_cosines, best_numbers, k + 1)
        own = np.arange(start, start + len(queries))
        kept = slice(start, start + len(queries))
        numbers[kept], cosines[kept] = _without(own, best_numbers, best_cosines, k)
        on_progress(min(start + step, total), total)
    return Neighbours(numbers, cosines)


def approximate_neighbours(
    vectors: Vectors,
    k: int,
    *,
    cells_probed: int,
    rows: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Neighbours:
    """By an inverted file: only the nearest of about sqrt(n) cells are searched.

    All vectors are in memory. `recall` tells what it missed.
    """
    faiss = load_faiss()
    rows = np.arange(len(vectors)) if rows is None else rows
    total, width = len(rows), vectors.shape[1]
    k = min(k, max(total - 1, 0))
    cells = max(1, int(total**0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1
    sample = np.random.default_rng(seed).permutation(total)[: 64 * cells]
    index.train(np.ascontiguousarray(vectors[rows[np.sort(sample)]]))
    step = max(1, BLOCK_BYTES // (4 * max(width, 1)))
    for low in range(0, total, step):
        index.add(np.ascontiguousarray(vectors[rows[low : low + step]]))
    index.nprobe = min(cells_probed, cells)
    numbers = np.full((total, k), -1, np.int64)
    cosines = np.full((total, k), -np.inf, np.float32)
    for start in range(0, total, step):
        queries = np.ascontiguousarray(vectors[rows[start : start + step]])
        found, places = index.search(queries, k + 1)
        own = np.arange(start, start + len(queries))
        kept = slice(start, start + len(queries))
        numbers[kept], cosines[kept] = _without(own, places, found, k)
    return Neighbours(numbers, cosines)


def recall(found: Neighbours, exact: Neighbours) -> float:
    """The share of the exact neighbours that were found, over all images."""
    hits = sum(
        len(np.intersect1d(ours, theirs))
        for ours, theirs in zip(found.numbers, exact.numbers, strict=True)
    )
    return hits / max(exact.numbers.size, 1)


def load_faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise SourceError(
            "expected the package `faiss-cpu` to search images, found none; "
            "run: pip install 'contextrl[mine]'"
        ) from error
    return faiss


def _empty(rows: int, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.empty((rows, k), np.float32), np.empty((rows, k), np.int64)


def _best(
    cosines: NDArray[np.float32], numbers: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k largest of each row, largest first; of equals the one with the lower number."""
    order = np.lexsort((numbers, -cosines), axis=1)[:, :k]
    return np.take_along_axis(cosines, order, 1), np.take_along_axis(numbers, order, 1)


def _without(
    own: NDArray[np.int64], numbers: NDArray[np.int64], cosines: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of k that do not hold their own number (a copy of an image may stand before it)."""
    order = np.argsort(numbers == own[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(numbers, order, 1), np.take_along_axis(cosines, order, 1)
