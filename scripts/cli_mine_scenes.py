"""`contextrl mine scenes`: pairs of images drawn by program, or a sheet to look at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from contextrl.scripts.console import ScriptError


def scenes(
    out: Annotated[Path | None, typer.Option(help="Pair folder to write.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw every family into this PNG instead, to look at.")
    ] = None,
    families: Annotated[str, typer.Option(help="Comma-separated; a wrong name lists them.")] = "",
    n: Annotated[int, typer.Option(min=1, help="Pairs in all.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of every choice.")] = 0,
    easiest: Annotated[float, typer.Option(min=0, max=1, help="Least difficulty.")] = 0.0,
    hardest: Annotated[float, typer.Option(min=0, max=1, help="Greatest difficulty.")] = 1.0,
    side: Annotated[
        int | None, typer.Option(min=28, help="Pixels of a side; by default by difficulty.")
    ] = None,
    unlike: Annotated[
        list[Path] | None, typer.Option(help="Pair folder whose images may not come again.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most N pairs.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The manifest as JSON.")] = False,
) -> None:
    """Draw pairs that differ in one decisive region; the answers are known by construction."""
    from contextrl.pairs.scene_pairs import SceneSettings, write_scenes
    from contextrl.pairs.scenes import chosen

    names = chosen(families)
    if easiest > hardest:
        raise ScriptError(f"expected --easiest below --hardest, found {easiest} and {hardest}")
    if sheet is not None:
        _draw_sheet(sheet, names, seed, (easiest, hardest), overwrite)
        return
    if out is None:
        raise ScriptError("expected --out FOLDER for pairs or --sheet FILE.png, found neither")
    settings = SceneSettings(
        families=names,
        n=min(n, limit or n),
        seed=seed,
        easiest=easiest,
        hardest=hardest,
        side=side,
        unlike=tuple(unlike or ()),
    )
    manifest = write_scenes(out, settings, overwrite=overwrite, on_progress=_progress)
    if json:
        typer.echo(manifest.model_dump_json())
        return
    (stage,) = manifest.stages
    typer.echo(f"{manifest.n_pairs} pairs in {out}; {stage.seen - stage.kept} scenes came twice")


def _draw_sheet(
    path: Path,
    names: tuple[str, ...],
    seed: int,
    difficulties: tuple[float, ...],
    overwrite: bool,
) -> None:
    from contextrl.pairs.scenes.sheet import contact_sheet

    if path.exists() and not overwrite:
        raise ScriptError(f"expected no file {path}, found one; pass --overwrite or another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = contact_sheet(names, seed=seed, difficulties=difficulties, across=3)
    # A palette is a third of the size, and scenes have few colours.
    drawn.quantize(128, dither=0).save(path, "PNG", optimize=True)
    typer.echo(f"{len(names)} families in {path}")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done % 20 == 0 or done == total):
        print(f"\r{done}/{total} pairs", end="\n" if done == total else "", file=sys.stderr)
