"""`contextrl clean`: remove what sandboxes left whose owner is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="Also containers whose run is still going.")
    ] = False,
    run: Annotated[
        str | None,
        typer.Option(help="Only the containers of this run: its folder, or its name as shown."),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images", help="Also the task images that we pulled or built.")
    ] = False,
) -> None:
    """Remove our containers whose owner is gone or whose deadline passed; print what went."""
    from contextrl.envs.cleanup import reap, reap_drafts, run_label
    from contextrl.envs.control_groups import remove_stale_groups
    from contextrl.envs.engine import connect
    from contextrl.envs.errors import EngineUnavailableError
    from contextrl.envs.image_store import ImageStore
    from contextrl.envs.leases import remove_all_stale

    # Before the engine is asked: where there is none, this is all there can be.
    for folder in (*remove_all_stale(), *remove_stale_groups()):
        typer.echo(f"removed {folder}: its owner is gone")
    try:
        client = connect()
    except EngineUnavailableError as error:
        if everything or run or images:  # asked for what only an engine has
            raise
        typer.echo(f"no containers looked for: {error}", err=True)
        return
    if run is not None and Path(run).is_dir():
        run = run_label(Path(run))
    removed = reap(client, run=run, everything=everything)
    for image in reap_drafts(client):
        typer.echo(f"removed {image}: the build it was a step of is gone")
    for image in ImageStore(client).remove_all() if images else ():
        typer.echo(f"removed image {image}")
    for container in removed:
        typer.echo(
            f"removed {container.container} of run {container.run or '?'} "
            f"({container.image}): {container.reason}"
        )
    typer.echo(f"{len(removed)} containers removed", err=True)
