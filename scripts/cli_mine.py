"""`contextrl mine`: run folders -> contrastive pairs, and what surface features say about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.cli_mine_audit import audit
from contextrl.scripts.cli_mine_corpus import corpus
from contextrl.scripts.cli_mine_edit import edit
from contextrl.scripts.cli_mine_export import export
from contextrl.scripts.cli_mine_images import images
from contextrl.scripts.cli_mine_judge import judge, review
from contextrl.scripts.cli_mine_read import read
from contextrl.scripts.cli_mine_scenes import scenes
from contextrl.scripts.cli_mine_tables import stage_table
from contextrl.scripts.pair_parts import HoldOutBy, divided, part_folders

if TYPE_CHECKING:  # what these import would slow `contextrl mine --help` down
    from contextrl.agents.types import Trajectory
    from contextrl.envs.types import Task
    from contextrl.pairs.evidence import ReadTaskSource

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

app.command()(read)
app.command()(corpus)
app.command()(audit)
app.command()(judge)
app.command()(review)
app.command()(export)
app.command()(scenes)
app.command()(images)
app.command()(edit)


@app.callback()
def mine_group() -> None:
    """Turn trajectories or images into contrastive pairs."""


@app.command()
def pairs(
    runs: Annotated[list[Path], typer.Option(help="Run folder; may be repeated.")],
    tasks: Annotated[list[Path], typer.Option(help="Task file, JSONL; may be repeated.")],
    out: Annotated[Path, typer.Option(help="Pair folder to write.")],
    seed: Annotated[int, typer.Option(help="Of the choice within the caps, and of splits.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="At most N pairs.")] = None,
    per_function: Annotated[int, typer.Option(min=1, help="Pairs of one function.")] = 64,
    per_file: Annotated[int, typer.Option(min=1, help="Pairs of one file.")] = 512,
    per_trajectory: Annotated[int, typer.Option(min=1, help="Pairs that show one run.")] = 8,
    held_out_frac: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Write OUT/train and OUT/held-out.")
    ] = 0.0,
    held_out_by: Annotated[HoldOutBy, typer.Option(help="What is held out.")] = HoldOutBy.FUNCTION,
    source: Annotated[
        Path | None,
        typer.Option(help="The repository at the tasks' commit: names functions by syntax tree."),
    ] = None,
    mirrors: Annotated[
        Path | None,
        typer.Option(help="Folder of git mirrors, for tasks of several repositories or commits."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Manifests as JSON.")] = False,
) -> None:
    """Mine pairs from run folders and print how many were left after each stage."""
    from contextrl.agents.store import TRAJECTORIES
    from contextrl.envs.tasks import read_tasks
    from contextrl.pairs.cascade import MINER, Caps, mine
    from contextrl.pairs.repositories import Repositories
    from contextrl.pairs.store import source_file, write_pairs

    if source is not None and mirrors is not None:
        raise typer.BadParameter("choose one of --source and --mirrors")
    parts = part_folders(out, held_out_frac, overwrite=overwrite)
    known: list[Task] = [task for path in tasks for task in read_tasks(path)]
    result = mine(
        _read_runs(runs),
        known,
        seed=seed,
        caps=Caps(
            per_function=per_function,
            per_file=per_file,
            per_trajectory=per_trajectory,
            limit=limit,
        ),
        read_source=_reader(source) if source else Repositories(mirrors) if mirrors else None,
    )
    sources = [source_file(path) for path in (*(run / TRAJECTORIES for run in runs), *tasks)]
    split = divided(result.pairs, held_out_frac, held_out_by, seed)
    manifests = [
        write_pairs(
            folder,
            split[part],
            miner=MINER,
            seed=seed,
            stages=result.stages,
            sources=sources,
            split=part,
            overwrite=overwrite,
        )
        for part, folder in parts.items()
    ]
    if json:
        typer.echo("\n".join(manifest.model_dump_json() for manifest in manifests))
        return
    typer.echo(stage_table(result.stages))
    for manifest, folder in zip(manifests, parts.values(), strict=True):
        typer.echo(f"{manifest.n_pairs} pairs in {folder}")


def _read_runs(folders: Sequence[Path]) -> Iterator[Trajectory]:
    """Ids get their folder's place in front when there are several: they are unique per run."""
    from contextrl.agents.store import read_trajectories

    for number, folder in enumerate(folders):
        for trajectory in read_trajectories(folder):
            if len(folders) > 1:
                named = f"{number}-{folder.resolve().name}:{trajectory.trajectory_id}"
                trajectory = trajectory.model_copy(update={"trajectory_id": named})
            yield trajectory


def _reader(root: Path) -> ReadTaskSource:
    """One checkout serves every task."""
    from contextrl.envs.tree_reader import reader_below

    read = reader_below(root)
    return lambda task, path: read(path)
