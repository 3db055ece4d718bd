"""`contextrl bench retrieval`: nearest neighbours by faiss against plain numpy, in one run."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.envs.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK_ROWS = 16_384


class SearchResult(Record):
    method: str
    seconds: float
    cpu_seconds: float
    """Of all threads together; a busy machine changes it less than the clock's."""
    own_memory_gb: float
    """The most that it held in memory beside the mapped file of vectors; Linux only, else 0."""
    recall: float
    """The share of plain numpy's neighbours that were found."""


def retrieval(
    n: Annotated[int, typer.Option(min=100, help="Vectors.")] = 20_000,
    dim: Annotated[int, typer.Option(min=2, help="Numbers a vector.")] = 1024,
    neighbours: Annotated[int, typer.Option(min=1, help="Looked for.")] = 10,
    cells_probed: Annotated[int, typer.Option(min=1, help="Of the inverted file.")] = 8,
    numpy_rows: Annotated[
        int, typer.Option(min=0, help="Drawn rows that numpy searches for; 0: all.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the vectors.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a method.")] = False,
) -> None:
    """Search N clustered vectors for their neighbours: numpy, exact faiss, an inverted file.

    The vectors are in a file that is mapped into memory, as those of `contextrl mine images` are.
    """
    import numpy as np

    from contextrl.pairs.neighbours import (
        Neighbours,
        approximate_neighbours,
        exact_neighbours,
        recall,
    )

    rows = np.arange(n)
    if numpy_rows:
        rows = np.sort(np.random.default_rng(seed).choice(n, min(numpy_rows, n), replace=False))
    with tempfile.TemporaryDirectory() as folder:
        vectors = clustered(Path(folder) / "vectors.f32", n, dim, seed)

        def plain() -> Neighbours:
            numbers, cosines = [], []
            for start in range(0, len(rows), 1024):
                own = rows[start : start + 1024]
                found = np.asarray(vectors[own] @ vectors.T)
                found[np.arange(len(own)), own] = -np.inf
                near = np.argpartition(-found, neighbours, axis=1)[:, :neighbours]
                numbers.append(near)
                cosines.append(np.take_along_axis(found, near, 1))
            return Neighbours(np.concatenate(numbers), np.concatenate(cosines))

        methods = {
            "numpy" + (f", {len(rows)} rows" if numpy_rows else ""): plain,
            "faiss, exact": lambda: exact_neighbours(vectors, neighbours),
            f"faiss, {cells_probed} cells": lambda: approximate_neighbours(
                vectors, neighbours, cells_probed=cells_probed, seed=seed
            ),
        }
        truth = None
        for method, search in methods.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            with peak_of_own_memory() as peak:
                found = search()
            seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
            if truth is None:
                truth = found
            else:
                found = Neighbours(found.numbers[rows], found.cosines[rows])
            result = SearchResult(
                method=method,
                seconds=seconds,
                cpu_seconds=cpu_seconds,
                own_memory_gb=max(peak) / 1e9,
                recall=recall(found, truth),
            )
            if json:
                typer.echo(result.model_dump_json())
            else:
                typer.echo(
                    f"{method:<18} {result.seconds:8.2f} s {result.cpu_seconds:8.2f} cpu s   "
                    f"{result.own_memory_gb:.2f} GB   recall {result.recall:.4f}"
                )


def clustered(path: Path, n: int, dim: int, seed: int) -> NDArray[np.float32]:
    """[n, dim], mapped: clusters of about ten, as near-duplicates form them. Noise alone has no
    neighbours to find."""
    import numpy as np

    from contextrl.pairs.embedders import unit_rows

    dice = np.random.default_rng(seed)
    centers = dice.standard_normal((max(n // 10, 1), dim), np.float32)
    written = np.memmap(path, np.float32, "w+", shape=(n, dim))
    for start in range(0, n, BLOCK_ROWS):
        count = min(BLOCK_ROWS, n - start)
        noise = 0.6 * dice.standard_normal((count, dim), np.float32)
        written[start : start + count] = unit_rows(
            centers[dice.integers(len(centers), size=count)] + noise
        )
    written.flush()
    return np.memmap(path, np.float32, "r", shape=(n, dim))


@contextmanager
def peak_of_own_memory() -> Iterator[list[float]]:
    """Bytes, looked at twenty times a second: what this process holds that is no file's."""
    seen, done = [_own_memory()], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            seen.append(_own_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _own_memory() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    lines = (line.split() for line in status.splitlines())
    return next((float(line[1]) * 1024 for line in lines if line[0] == "RssAnon:"), 0.0)
