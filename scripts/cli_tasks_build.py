"""`contextrl tasks build`: a package becomes splits of validated tasks, in one folder."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from contextrl.envs.engine import connect
from contextrl.envs.errors import EngineUnavailableError
from contextrl.envs.mutate import PackagePlace, build_package_tasks
from contextrl.envs.mutation_stages import Progress as Report
from contextrl.envs.package_specs import package_spec
from contextrl.envs.task_splits import SplitSizes, TaskSplits
from contextrl.envs.unpacked import DEFAULT_ROOTS


def build(
    out: Annotated[Path, typer.Option(help="Folder that gets one folder per build.")],
    package: Annotated[str, typer.Option(help="Name of a built-in package.")] = "toolz",
    seed: Annotated[int, typer.Option(help="Of the sample of bugs and of the splits.")] = 0,
    train: Annotated[int, typer.Option(min=1, help="Training tasks, at most.")] = 240,
    heldout_functions: Annotated[
        int, typer.Option(min=1, help="Tasks of functions that training never sees, at most.")
    ] = 60,
    heldout_mutants: Annotated[
        int, typer.Option(min=1, help="Held-out tasks of training functions, at most.")
    ] = 50,
    extra: Annotated[
        int, typer.Option(min=0, help="More bugs of training functions, at most.")
    ] = 600,
    max_function_lines: Annotated[
        int | None, typer.Option(min=2, help="Leave longer functions intact.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="No split gets more tasks.")] = None,
    roots: Annotated[
        Path, typer.Option(help="Where the image goes on a machine without a Docker engine.")
    ] = DEFAULT_ROOTS,
    overwrite: Annotated[bool, typer.Option(help="Build again even if it is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Inject bugs into a small real package, one at a time, and keep those its tests see."""
    wanted = {
        "train": train,
        "heldout_functions": heldout_functions,
        "heldout_mutants": heldout_mutants,
        "extra": extra,
    }
    sizes = SplitSizes(
        **{name: size if limit is None else min(size, limit) for name, size in wanted.items()}
    )
    spec = package_spec(package)
    if max_function_lines is not None:
        spec = spec.model_copy(update={"max_function_lines": max_function_lines})
    started = time.monotonic()
    with _progress() as progress:
        splits = build_package_tasks(
            _place(roots.expanduser()),
            spec,
            out=out,
            sizes=sizes,
            seed=seed,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(splits.manifest.model_dump(mode="json"), indent=2))
    else:
        _show(splits, seconds=time.monotonic() - started)


def _show(splits: TaskSplits, *, seconds: float) -> None:
    manifest = splits.manifest
    for stage in manifest.stages:
        why = ", ".join(f"{reason} {number}" for reason, number in stage.dropped.items())
        typer.echo(f"{stage.stage:>10}  kept {stage.kept}/{stage.seen}  {why}".rstrip())
    for split, tasks in manifest.tasks.items():
        functions = len(manifest.functions[split])
        typer.echo(f"{splits.path(split)}  {tasks} tasks in {functions} functions")
    typer.echo(f"image {manifest.image}, {seconds:.1f} s")


def _place(roots: Path) -> PackagePlace:
    try:
        return PackagePlace.of_engine(connect())
    except EngineUnavailableError:
        typer.echo(f"no Docker engine: the image is made in namespaces, in {roots}", err=True)
        return PackagePlace.of_roots(roots)


def _progress() -> AbstractContextManager[Report]:
    """Bars on stderr if it is a terminal, nothing otherwise."""
    return _Bars() if sys.stderr.isatty() else nullcontext(lambda stage, done, total: None)


class _Bars:
    def __init__(self) -> None:
        columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))
        self._ids: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._ids:
            self._ids[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._ids[stage], completed=done)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()
