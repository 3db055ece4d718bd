"""Nearest neighbours by cosine: exact in bounded memory, or faster with its recall stated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from contextrl.pairs.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contextrl.pairs.embedders import Vectors

    Numbers = NDArray[np.int64]

BLOCK_BYTES = 256 << 20
"""Of vectors in memory at a time, on each side."""
QUERY_ROWS = 8192
"""Queries at once, so that a search which is killed loses minutes at most."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Row i: the k images nearest to the i-th query, itself left out, nearest first.

    Numbers are places in the `rows` that were searched.
    """

    numbers: NDArray[np.int64]
    """[n, k]; -1 where there are fewer."""
    cosines: NDArray[np.float32]
    """[n, k]"""

    def couples(self) -> Couples:
        """Each unordered couple of images of which one is near the other, once.

        Every image was a query, in order.
        """
        rows, places = np.nonzero(self.numbers >= 0)
        others = self.numbers[rows, places]
        low, high = np.minimum(rows, others), np.maximum(rows, others)
        _, once = np.unique(low * len(self.numbers) + high, return_index=True)
        cosines = np.minimum(self.cosines[rows[once], places[once]], 1.0)
        return Couples(low[once], high[once], cosines)


@dataclass(frozen=True, slots=True)
class Couples:
    """One entry a couple; numbers as in `Neighbours`, the lower one first."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    cosines: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def at_least(self, cosine: float) -> Couples:
        kept = self.cosines >= cosine
        return Couples(self.first[kept], self.second[kept], self.cosines[kept])


class Saved(Protocol):
    """Keeps what was found, so that a run which is killed goes on behind it."""

    def found(self) -> Neighbours:
        """Of the first queries."""
        ...

    def add(self, more: Neighbours) -> None:
        """Of the next ones."""
        ...


class Unsaved:
    def __init__(self, k: int) -> None:
        self._blocks = [Neighbours(*_unknown(0, k))]

    def found(self) -> Neighbours:
        return Neighbours(
            np.concatenate([each.numbers for each in self._blocks]),
            np.concatenate([each.cosines for each in self._blocks]),
        )

    def add(self, more: Neighbours) -> None:
        self._blocks.append(more)


def exact_neighbours(
    vectors: Vectors,
    k: int,
    *,
    rows: Numbers | None = None,
    queries: Numbers | None = None,
    saved: Saved | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Neighbours:
    """By faiss over blocks of queries against blocks of images, so that nothing else is in memory.

    `rows` are the vectors to search, all by default; `queries` are places in `rows`, all by
    default, and the result has one row for each. Raises `SourceError` when faiss is not installed.
    """
    faiss = load_faiss()
    rows = np.arange(len(vectors)) if rows is None else rows
    queries = np.arange(len(rows)) if queries is None else queries
    k = nearest_at_most(k, len(rows))
    saved = saved or Unsaved(k)
    step = _rows_at_once(vectors)
    done = len(saved.found().numbers)
    for start in range(done, len(queries) if k else 0, min(step, QUERY_ROWS)):
        own = queries[start : start + min(step, QUERY_ROWS)]
        asked = np.ascontiguousarray(vectors[rows[own]])
        best_cosines, best_numbers = _empty(len(own), 0)
        for low in range(0, len(rows), step):
            block = np.ascontiguousarray(vectors[rows[low : low + step]])
            near = min(k + 1, len(block))  # one more: the query itself is among them
            found, places = faiss.knn(asked, block, near, metric=faiss.METRIC_INNER_PRODUCT)
            best_cosines = np.concatenate([best_cosines, found], axis=1)
            best_numbers = np.concatenate([best_numbers, places + low], axis=1)
            best_cosines, best_numbers = _best(best_cosines, best_numbers, k + 1)
        saved.add(Neighbours(*_without(own, best_numbers, best_cosines, k)))
        on_progress(start + len(own), len(queries))
    return saved.found() if k else Neighbours(*_unknown(len(queries), 0))


def approximate_neighbours(
    vectors: Vectors,
    k: int,
    *,
    cells_probed: int,
    rows: Numbers | None = None,
    queries: Numbers | None = None,
    seed: int = 0,
    saved: Saved | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Neighbours:
    """By an inverted file: only the nearest of about sqrt(n) cells are searched.

    All vectors are in memory. `recall` tells what it missed. `saved` spares the queries that were
    answered, not the building of the file.
    """
    rows = np.arange(len(vectors)) if rows is None else rows
    queries = np.arange(len(rows)) if queries is None else queries
    k = nearest_at_most(k, len(rows))
    saved = saved or Unsaved(k)
    done = len(saved.found().numbers) if k else len(queries)
    step = min(_rows_at_once(vectors), QUERY_ROWS)
    index: Any = None
    if done < len(queries):
        index = _inverted_file(vectors, rows, cells_probed, seed)
    for start in range(done, len(queries), step):
        own = queries[start : start + step]
        found, places = index.search(np.ascontiguousarray(vectors[rows[own]]), k + 1)
        saved.add(Neighbours(*_without(own, places, found, k)))
        on_progress(start + len(own), len(queries))
    return saved.found() if k else Neighbours(*_unknown(len(queries), 0))


def _inverted_file(vectors: Vectors, rows: Numbers, cells_probed: int, seed: int) -> Any:
    faiss = load_faiss()
    total, width = len(rows), vectors.shape[1]
    cells = max(1, int(total**0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    index.cp.min_points_per_centroid = 1
    sample = np.random.default_rng(seed).permutation(total)[: 64 * cells]
    index.train(np.ascontiguousarray(vectors[rows[np.sort(sample)]]))
    step = _rows_at_once(vectors)
    for low in range(0, total, step):
        index.add(np.ascontiguousarray(vectors[rows[low : low + step]]))
    index.nprobe = min(cells_probed, cells)
    return index


def nearest_at_most(k: int, total: int) -> int:
    """Neighbours that an image can have among `total`."""
    return min(k, max(total - 1, 0))


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


def _rows_at_once(vectors: Vectors) -> int:
    return max(1, BLOCK_BYTES // (4 * max(int(vectors.shape[1]), 1)))


def _unknown(rows: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.full((rows, k), -1, np.int64), np.full((rows, k), -np.inf, np.float32)


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
