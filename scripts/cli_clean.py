"""`contextrl clean`: remove what sandboxes left whose owner is gone."""

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
    import tempfile
    from pathlib import Path

    from contextrl.envs.cleanup import reap, remove_stale_folders
    from contextrl.envs.engine import connect
    from contextrl.envs.namespace import CONTROL_PREFIX

    # Before the engine is asked: where there is none, this is all there can be.
    for folder in remove_stale_folders(Path(tempfile.gettempdir()), CONTROL_PREFIX):
        typer.echo(f"removed {folder}: its owner is gone")
    removed = reap(connect(), run=run, everything=everything)
    for container in removed:
        typer.echo(
            f"removed {container.container} of run {container.run or '?'} "
            f"({container.image}): {container.reason}"
        )
    typer.echo(f"{len(removed)} containers removed", err=True)
