"""`contextrl bench scenes`: how fast each family draws, on one core."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from contextrl.envs.types import Record


class SceneRate(Record):
    family: str
    drawn_per_s: float
    """Pairs per second of CPU time, over difficulties spread evenly from 0 to 1."""
    stored_per_s: float
    """Drawing, PNG encoding and the files included."""


def scenes(
    families: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = "",
    n: Annotated[int, typer.Option(min=2, help="Pairs of each family.")] = 40,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a family.")] = False,
) -> None:
    """Draw N pairs of each family and print pairs per second of CPU time."""
    from contextrl.pairs.scenes import chosen

    rates = []
    for family in chosen(families):
        rates.append(_rate(family, n))
        if json:
            typer.echo(rates[-1].model_dump_json())
        else:
            rate = rates[-1]
            typer.echo(
                f"{family:<12} {rate.drawn_per_s:8.0f} drawn/s {rate.stored_per_s:8.0f} stored/s"
            )
    slowest = min(rates, key=lambda rate: rate.drawn_per_s)
    if not json:
        typer.echo(f"slowest: {slowest.family}, {slowest.drawn_per_s:.0f} pairs/s")


def _rate(family: str, n: int) -> SceneRate:
    from contextrl.pairs.images import ImageStore
    from contextrl.pairs.scene_pairs import image_pair
    from contextrl.pairs.scenes import draw_pair

    with tempfile.TemporaryDirectory() as folder:
        store = ImageStore(Path(folder))
        draw_pair(family, 0, 1.0)  # fonts are loaded once
        # CPU time: a busy machine changes it less than the clock's.
        began = time.process_time()
        pairs = [draw_pair(family, seed, seed / (n - 1)) for seed in range(n)]
        drawn = time.process_time()
        for pair in pairs:
            image_pair(pair, store)
        stored = time.process_time()
    return SceneRate(
        family=family,
        drawn_per_s=n / max(drawn - began, 1e-9),
        stored_per_s=n / max(stored - began, 1e-9),
    )
