"""`contextrl tasks from-bugs`: bugs without issues or tests become validated tasks."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # what these import would slow `contextrl tasks --help` down
    from contextrl.envs.bug_folder import BugManifest
    from contextrl.envs.types import SandboxProvider, Task


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
    roots: Annotated[
        Path | None,
        typer.Option(help="Unpack images here and test in namespaces, not in containers."),
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
    from contextrl.envs.grading import DockerGrader

    started = time.monotonic()
    provider, ensure = _place(repos, roots)
    with (
        tempfile.TemporaryDirectory(prefix="contextrl-bugs-") as scratch,
        contextlib.closing(provider),
    ):
        manifest = build_bug_folder(
            bugs,
            out,
            BugBench(
                ensure_image=ensure,
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
    if as_json:
        typer.echo(manifest.model_dump_json(indent=2))
    else:
        _show(manifest, out, seconds=time.monotonic() - started)


def _place(repos: Path, roots: Path | None) -> tuple[SandboxProvider, Callable[[Task], str]]:
    """Where tests run, and what sees to an image there. Images are built by the engine."""
    from contextrl.envs.docker import DockerProvider
    from contextrl.envs.engine import connect
    from contextrl.envs.images import ensure_image
    from contextrl.envs.namespace import NamespaceProvider
    from contextrl.envs.unpacked import unpack

    client = connect()
    if roots is None:
        return DockerProvider(client), partial(ensure_image, client, repos=repos)
    folder = roots.expanduser()

    def unpacked(task: Task) -> str:
        image = ensure_image(client, task, repos=repos)
        unpack(client, image, folder)
        return image

    return NamespaceProvider(folder), unpacked


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
