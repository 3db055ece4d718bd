"""`contextrl tasks from-bugs`: bugs without issues or tests become validated tasks."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contextrl.envs.bug_folder import BugManifest


def from_bugs(
    bugs: Annotated[
        Path, typer.Argument(help="SWE-smith's bugs, JSONL: instance_id, base_commit, bug_patch.")
    ],
    repos: Annotated[Path, typer.Option(help="Local clones or mirrors of the repositories.")],
    out: Annotated[Path, typer.Option(help="Folder for tasks, quarantine and manifest.")],
    seed: Annotated[int, typer.Option(help="Of the order in which bugs are tried.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Try only N bugs, repositories in turn.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Sandboxes at once.")] = 2,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the build in OUT.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Run the tests with each bug to find its issue and its lists of tests; keep what holds."""
    if resume and overwrite:
        raise typer.BadParameter("choose one of --resume and --overwrite")
    from contextrl.envs.bug_folder import build_bug_folder
    from contextrl.envs.bug_tasks import BugBench
    from contextrl.envs.docker import DockerProvider
    from contextrl.envs.engine import connect
    from contextrl.envs.grading import DockerGrader

    started = time.monotonic()
    client = connect()
    provider = DockerProvider(client)
    try:
        with tempfile.TemporaryDirectory(prefix="contextrl-bugs-") as scratch:
            manifest = build_bug_folder(
                bugs,
                out,
                BugBench(
                    client=client,
                    provider=provider,
                    grader=DockerGrader(provider),
                    repos=repos,
                    scratch=Path(scratch),
                ),
                seed=seed,
                limit=limit,
                workers=workers,
                resume=resume,
                overwrite=overwrite,
                on_progress=_progress,
            )
    finally:
        provider.close()
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
    else:
        _show(manifest, out, seconds=time.monotonic() - started)


def _show(manifest: BugManifest, out: Path, *, seconds: float) -> None:
    for stage in manifest.stages:
        typer.echo(f"{stage.kept:>6} of {stage.seen:>6}  {stage.stage}")
    for repository, tasks in manifest.tasks.items():
        typer.echo(f"{tasks:>6} tasks of {repository}")
    typer.echo(
        f"{sum(manifest.tasks.values())} tasks in {out} of {manifest.tried} bugs tried and "
        f"{manifest.rows} in the file, {seconds:.0f} s"
    )


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[Kbugs: {done}/{total}", end="", file=sys.stderr, flush=True)
