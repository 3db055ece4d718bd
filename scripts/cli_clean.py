"""`contextrl clean`: remove containers that nobody owns any more."""

from __future__ import annotations

from typing import Annotated

import typer


def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="Also containers whose run is still going.")
    ] = False,
    run: Annotated[str | None, typer.Option(help="Only the containers of this run.")] = None,
) -> None:
    """Remove our containers whose owner is gone or whose deadline passed; print what went."""
    from contextrl.envs.cleanup import reap
    from contextrl.envs.engine import connect

    removed = reap(connect(), run=run, everything=everything)
    for container in removed:
        typer.echo(
            f"removed {container.container} of run {container.run or '?'} "
            f"({container.image}): {container.reason}"
        )
    typer.echo(f"{len(removed)} containers removed", err=True)
