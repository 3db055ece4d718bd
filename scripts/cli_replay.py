"""`contextrl replay`: recorded runs in a terminal, or re-executed without one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from contextrl.scripts import console


def replay(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_TRAJECTORY...",
            help="Run folder, trajectories.jsonl, one trajectory's JSON, or a pair folder.",
        ),
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Re-execute: exit 0 reproduced, 1 diverged, 2 not run.")
    ] = False,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(help="Task file; may be repeated. A training run's own are found."),
    ] = None,
    trajectory: Annotated[str, typer.Option("--id", help="Only the one with this id.")] = "",
    to_step: Annotated[
        int | None, typer.Option(min=1, help="With --check: only the first N steps.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --check: the first N.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="With --check: sandboxes at once.")] = 2,
    repos: Annotated[
        Path | None, typer.Option(help="Local clones to build absent images from.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="With --check: results as JSON.")] = False,
) -> None:
    """Live through recorded runs again: look, re-execute, branch."""
    if check:
        raise typer.Exit(
            _check(
                paths,
                tasks,
                only=trajectory,
                to_step=to_step,
                limit=limit,
                workers=workers,
                repos=repos,
                as_json=json,
            )
        )
    raise typer.BadParameter("the terminal application is not there yet; use --check")


def _check(
    paths: list[Path],
    tasks: list[Path] | None,
    *,
    only: str,
    to_step: int | None,
    limit: int | None,
    workers: int,
    repos: Path | None,
    as_json: bool,
) -> int:
    """The exit code. Whatever keeps it from running is 2, never the 1 that says diverged."""
    from contextrl.scripts.replay_check import EXIT_NOT_RUN, lines
    from contextrl.scripts.replay_check import check as check_all
    from contextrl.scripts.replay_tasks import Sandboxes, TaskBook, tasks_of_run

    try:
        files = tasks or [file for path in paths for file in tasks_of_run(path)]
        with Sandboxes(repos) as sandboxes:
            report = check_all(
                paths,
                TaskBook(files),
                sandboxes,
                only=only,
                to_step=to_step,
                limit=limit,
                workers=workers,
            )
    except Exception as error:
        line = console.expected_failure(error)
        if line is None:
            raise
        print(f"contextrl: {line}", file=sys.stderr)
        return EXIT_NOT_RUN
    typer.echo(report.model_dump_json() if as_json else "\n".join(lines(report)))
    return report.exit_code
