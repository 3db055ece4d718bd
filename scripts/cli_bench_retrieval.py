"""`contextrl bench retrieval`: nearest neighbours by faiss against plain numpy, in one run."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from contextrl.envs.types import Record


class SearchResult(Record):
    method: str
    seconds: float
    cpu_seconds: float
    """Of all threads together: what a busy machine does not change."""
    recall: float
    """The share of plain numpy's neighbours that were found."""


def retrieval(
    n: Annotated[int, typer.Option(min=100, help="Vectors.")] = 20_000,
    dim: Annotated[int, typer.Option(min=2, help="Numbers a vector.")] = 1024,
    neighbours: Annotated[int, typer.Option(min=1, help="Looked for.")] = 10,
    cells_probed: Annotated[int, typer.Option(min=1, help="Of the inverted file.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the vectors.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a method.")] = False,
) -> None:
    """Search N clustered vectors for their neighbours: numpy, exact faiss, an inverted file."""
    import numpy as np

    from contextrl.pairs.embedders import unit_rows
    from contextrl.pairs.neighbours import (
        Neighbours,
        approximate_neighbours,
        exact_neighbours,
        recall,
    )

    # Clusters of about ten, as near-duplicates form them: noise alone has no neighbours to find.
    dice = np.random.default_rng(seed)
    centers = dice.standard_normal((max(n // 10, 1), dim), np.float32)
    vectors = unit_rows(
        centers[dice.integers(len(centers), size=n)]
        + 0.6 * dice.standard_normal((n, dim), np.float32)
    )

    def plain() -> Neighbours:
        numbers, cosines = [], []
        for start in range(0, n, 1024):
            found = vectors[start : start + 1024] @ vectors.T
            found[np.arange(len(found)), np.arange(start, start + len(found))] = -np.inf
            near = np.argpartition(-found, neighbours, axis=1)[:, :neighbours]
            numbers.append(near)
            cosines.append(np.take_along_axis(found, near, 1))
        return Neighbours(np.concatenate(numbers), np.concatenate(cosines))

    methods = {
        "numpy": plain,
        "faiss, exact": lambda: exact_neighbours(vectors, neighbours),
        f"faiss, {cells_probed} cells": lambda: approximate_neighbours(
            vectors, neighbours, cells_probed=cells_probed, seed=seed
        ),
    }
    truth = None
    for method, search in methods.items():
        began, cpu_began = time.perf_counter(), time.process_time()
        found = search()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        truth = truth or found
        result = SearchResult(
            method=method,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            recall=recall(found, truth),
        )
        if json:
            typer.echo(result.model_dump_json())
        else:
            typer.echo(
                f"{method:<16} {result.seconds:8.2f} s {result.cpu_seconds:8.2f} cpu s   "
                f"recall {result.recall:.4f}"
            )
