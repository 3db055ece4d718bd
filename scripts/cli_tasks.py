"""`contextrl tasks`: look at a file of tasks, and check that each one holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:
    from contextrl.envs.types import Reward
    from contextrl.envs.validate import Validation

app = typer.Typer(help="Look at tasks and check them.", no_args_is_help=True)

TasksFile = Annotated[
    Path, typer.Option("--tasks", help="Rows of SWE-Gym, SWE-bench, SWE-smith, or our own tasks.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N tasks.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout.")]


@app.command()
def show(tasks: TasksFile, limit: Limit = None, as_json: AsJson = False) -> None:
    """List the tasks of a file, or print them in our own form with --json."""
    from contextrl.envs.tasks import read_tasks

    found = read_tasks(tasks, limit=limit)
    if as_json:
        for task in found:
            typer.echo(task.model_dump_json())
        return

    from rich.console import Console
    from rich.table import Table

    table = Table("task", "source", "commit", "fail", "pass", "image", "issue")
    for task in found:
        title = (task.problem.strip().splitlines() or [""])[0]
        table.add_row(
            task.task_id,
            task.source,
            task.base_commit[:8],
            str(len(task.fail_to_pass)),
            str(len(task.pass_to_pass)),
            task.image,
            title[:60],
        )
    Console().print(table)


@app.command()
def validate(
    tasks: TasksFile,
    limit: Limit = None,
    repos: Annotated[
        Path | None, typer.Option(help="Local clones or mirrors, to build images from.")
    ] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="Grade each patch N times; all must agree.")
    ] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the tasks that hold here.")] = None,
    quarantine: Annotated[
        Path | None, typer.Option(help="Write what does not hold here, with reasons.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace --out and --quarantine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Grade each task's gold patch and an empty one. Exit status 1 if any task does not hold."""
    for path in (out, quarantine):
        if path is not None and path.exists() and not overwrite:
            raise typer.BadParameter(f"{path} exists; give --overwrite to replace it")
    from contextrl.envs.docker import DockerProvider
    from contextrl.envs.engine import connect
    from contextrl.envs.grading import DockerGrader
    from contextrl.envs.tasks import read_tasks, write_tasks
    from contextrl.envs.validate import validate_task

    found = read_tasks(tasks, limit=limit)
    if not found:
        raise ScriptError(f"{tasks}: expected at least one task, found none")
    client = connect()
    done: list[Validation] = []
    provider = DockerProvider(client)
    try:
        grader = DockerGrader(provider)
        for number, task in enumerate(found, start=1):
            typer.echo(f"[{number}/{len(found)}] {task.task_id} ...", err=True)
            done.append(validate_task(task, grader, client=client, repos=repos, repeats=repeat))
            if as_json:
                typer.echo(done[-1].model_dump_json())
    finally:
        provider.close()
    if not as_json:
        _print_table(done)
    failed = sum(not validation.ok for validation in done)
    if out is not None:
        holding = [task for task, one in zip(found, done, strict=True) if one.ok]
        write_tasks(out, holding)
    if quarantine is not None:
        bad = [one.model_dump_json() for one in done if not one.ok]
        quarantine.write_text("".join(f"{line}\n" for line in bad), encoding="utf-8")
    typer.echo(f"{len(done) - failed} of {len(done)} tasks hold", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def unpack(
    tasks: TasksFile,
    roots: Annotated[Path, typer.Option(help="Folder that gets one folder for each image.")],
    limit: Limit = None,
    repos: Annotated[
        Path | None, typer.Option(help="Local clones or mirrors, to build images from.")
    ] = None,
) -> None:
    """Unpack the tasks' images, for machines without a Docker engine; `roots` can be copied."""
    from contextrl.envs.engine import connect
    from contextrl.envs.images import ensure_image
    from contextrl.envs.tasks import read_tasks
    from contextrl.envs.unpacked import unpack as unpack_image

    client = connect()
    done: set[str] = set()
    for task in read_tasks(tasks, limit=limit):
        if task.image not in done:
            done.add(task.image)
            image = ensure_image(client, task, repos=repos)
            typer.echo(unpack_image(client, image, roots.expanduser(), name=task.image))


def _print_table(done: list[Validation]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "gold", "empty", "tests", "image s", "gold s", "empty s", "overhead s")
    for column in table.columns:
        column.no_wrap = True
    for validation in done:
        gold, empty = validation.gold, validation.empty
        table.add_row(
            validation.task_id,
            _verdict(gold),
            _verdict(empty),
            str(len(gold.tests)) if gold else "-",
            f"{validation.image_s:.1f}",
            f"{gold.seconds:.1f}" if gold else "-",
            f"{empty.seconds:.1f}" if empty else "-",
            f"{gold.seconds - gold.test_seconds:.2f}" if gold else "-",
        )
    # Wide enough for an id even where the output is a file: cut ids are of no use.
    Console(width=max(Console().width, 120)).print(table)
    for validation in done:
        if not validation.ok:
            typer.echo(f"{validation.task_id}: {validation.reason}: {validation.problem}")


def _verdict(reward: Reward | None) -> str:
    return reward.verdict if reward else "-"
