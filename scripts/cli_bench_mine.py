"""`contextrl bench mine`: the miner on a made-up corpus in the shape of SWE-smith's."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer


def mine(
    runs: Annotated[int, typer.Option(min=100, help="SWE-smith's set has 66,000.")] = 66_000,
    repositories: Annotated[int, typer.Option(min=1)] = 128,
    chars: Annotated[int, typer.Option(min=2000, help="Of text a row, about.")] = 45_000,
    limit: Annotated[int, typer.Option(min=1, help="Pairs to mine.")] = 1000,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    folder: Annotated[
        Path | None, typer.Option(help="Where the corpus is made; removed afterwards.")
    ] = None,
) -> None:
    """Time sources, cascade, masking and rendering, and print the peak memory."""
    from contextrl.pairs.caps import Caps
    from contextrl.pairs.corpus_miner import MineSettings, mine_corpus
    from contextrl.pairs.index import IndexOptions
    from contextrl.pairs.render import RELEASED, order_for, render
    from contextrl.scripts.bench_corpus import CorpusShape, write_corpus
    from contextrl.scripts.cli_mine_tables import stage_table

    with tempfile.TemporaryDirectory(dir=folder) as home:
        shape = CorpusShape(runs=runs, repositories=repositories, chars=chars)
        size = write_corpus(Path(home) / "corpus", shape)
        work = Path(home) / "work"
        work.mkdir()
        started, cpu_before = time.monotonic(), _cpu_s()
        result = mine_corpus(
            [str(Path(home) / "corpus")],
            work,
            IndexOptions(),
            MineSettings(
                caps=Caps(per_function=8, per_file=32, per_trajectory=4, limit=limit),
                workers=workers,
            ),
            on_progress=_progress,
        )
        mined_s = time.monotonic() - started
        rendered = 0
        for pair in result:
            rendered += len(render(pair, order_for(pair.pair_id, 0), RELEASED).prompt)
        seconds, cpu_s = time.monotonic() - started, _cpu_s() - cpu_before
    typer.echo(stage_table(result.stages))
    typer.echo(
        f"{runs} runs, {size / 1e9:.2f} GB, {workers} workers: {seconds:.1f} s in all "
        f"({mined_s:.1f} s mining), {cpu_s:.1f} s of CPU, {_peak_gb():.2f} GB at the peak of the "
        f"largest process; {len(result)} pairs, {rendered / 1e6:.1f} M characters rendered"
    )


def _cpu_s() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _peak_gb() -> float:
    """Of one process: Linux counts kilobytes."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(each.ru_maxrss for each in used) * 1024 / 1e9


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}: {done}/{total or '?'}", end="", file=sys.stderr, flush=True)
