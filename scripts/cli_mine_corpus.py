"""`contextrl mine corpus`: public trajectories -> pairs, with a count after every stage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.pair_parts import HoldOutBy, divided, part_folders

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from contextrl.pairs.index import IndexOptions
    from contextrl.pairs.types import Instance


def corpus(
    sources: Annotated[list[str], typer.Argument(help="Files, folders, hf://owner/name[@split].")],
    out: Annotated[Path, typer.Option(help="Pair folder to write.")],
    work: Annotated[
        Path | None, typer.Option(help="Index and scratch; kept, so that a rerun resumes.")
    ] = None,
    instances: Annotated[
        list[Path] | None,
        typer.Option(help="Task rows to join by id (SWE-smith: the bug); may be repeated."),
    ] = None,
    mirrors: Annotated[
        Path | None, typer.Option(help="Folder of git mirrors: functions by syntax tree.")
    ] = None,
    benchmark: Annotated[
        list[Path] | None, typer.Option(help="Benchmark rows that must not be trained on.")
    ] = None,
    keep_benchmarks: Annotated[
        bool, typer.Option("--keep-benchmarks", help="To look at; never train on these.")
    ] = False,
    any_commit: Annotated[
        bool, typer.Option("--any-commit", help="Couple different commits: only to look at.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the choice within the caps.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most N pairs.")] = 1000,
    per_function: Annotated[int, typer.Option(min=1, help="Pairs of one function.")] = 8,
    per_file: Annotated[int, typer.Option(min=1, help="Pairs of one file.")] = 32,
    per_repository: Annotated[int, typer.Option(min=1, help="Pairs of one repository.")] = 200,
    per_trajectory: Annotated[int, typer.Option(min=1, help="Pairs that show one run.")] = 4,
    min_similarity: Annotated[float, typer.Option(help="Below it issues are unrelated.")] = 0.05,
    max_similarity: Annotated[float, typer.Option(help="From it on they are the same bug.")] = 0.85,
    held_out_frac: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Write OUT/train and OUT/held-out.")
    ] = 0.0,
    held_out_by: Annotated[HoldOutBy, typer.Option(help="What is held out.")] = HoldOutBy.FUNCTION,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The manifest as JSON.")] = False,
) -> None:
    """Mine pairs from public trajectories of any size and print every stage's count."""
    from contextrl.pairs.caps import Caps
    from contextrl.pairs.corpus_miner import MINER, MINER_ANY_COMMIT, MineSettings, mine_corpus
    from contextrl.pairs.related import RelatedBounds
    from contextrl.pairs.store import source_file, write_pairs
    from contextrl.scripts.cli_mine_tables import stage_table

    parts = part_folders(out, held_out_frac, overwrite=overwrite)
    settings = MineSettings(
        caps=Caps(
            per_function=per_function,
            per_file=per_file,
            per_repository=per_repository,
            per_trajectory=per_trajectory,
            limit=limit,
        ),
        bounds=RelatedBounds(min_similarity=min_similarity, max_similarity=max_similarity),
        seed=seed,
        any_commit=any_commit,
        workers=workers,
    )
    options = _options(instances or [], mirrors, benchmark or [], keep_benchmarks)
    scratch = work if work is not None else out / "work"
    scratch.mkdir(parents=True, exist_ok=True)
    result = mine_corpus(sources, scratch, options, settings, on_progress=_progress)
    files = [Path(each) for each in sources if Path(each).is_file()]
    split = divided(result, held_out_frac, held_out_by, seed)
    manifests = [
        write_pairs(
            folder,
            split[part],
            miner=MINER_ANY_COMMIT if any_commit else MINER,
            seed=seed,
            stages=result.stages,
            sources=[source_file(path) for path in files],
            split=part,
            overwrite=overwrite,
        )
        for part, folder in parts.items()
    ]
    if json:
        typer.echo("\n".join(manifest.model_dump_json() for manifest in manifests))
        return
    typer.echo(stage_table(result.stages))
    for report in result.reports:
        for reason, count in report.reasons.items():
            typer.echo(f"  {count} rows not read: {reason}")
    for manifest, folder in zip(manifests, parts.values(), strict=True):
        typer.echo(f"{manifest.n_pairs} pairs in {folder}")


def _options(
    instances: list[Path], mirrors: Path | None, benchmark: list[Path], keep_benchmarks: bool
) -> IndexOptions:
    from contextrl.pairs.decontaminate import Benchmark
    from contextrl.pairs.index import IndexOptions
    from contextrl.pairs.repositories import Repositories

    return IndexOptions(
        instances={each.task_id: each for each in _instances(instances)},
        benchmark=None if keep_benchmarks else Benchmark(_instances(benchmark)),
        read_source=Repositories(mirrors) if mirrors is not None else None,
    )


def _instances(paths: list[Path]) -> list[Instance]:
    from contextrl.envs.tasks import read_tasks
    from contextrl.pairs.sources import instance_of_task

    return [instance_of_task(task) for path in paths for task in read_tasks(path)]


def _progress(what: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        of = f"/{total}" if total else ""
        print(f"\r\x1b[K{what}: {done}{of}", end="", file=sys.stderr, flush=True)
