"""`contextrl mine export`: pairs as a data set for `datasets` and the hub."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what this imports would slow `contextrl mine --help` down
    from contextrl.pairs.store import PairManifest


class Form(StrEnum):
    PARQUET = "parquet"
    RELEASED = "released"


def export(
    path: Annotated[Path, typer.Argument(metavar="PAIRS", help="Pair folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the data file and its card.")],
    form: Annotated[Form, typer.Option(help="All fields, or the released prompts.")] = Form.PARQUET,
    seed: Annotated[int, typer.Option(help="Of the option order (released).")] = 0,
    push: Annotated[str | None, typer.Option(help="Also push to this hub data set.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs.")] = None,
) -> None:
    """Write pairs with a data set card; `datasets.load_dataset(OUT)` reads them.

    Pairs of images have one form, the released one: parquet with images, problem and answer.
    """
    from contextrl.pairs.export import export_parquet, export_released
    from contextrl.pairs.render import RELEASED
    from contextrl.pairs.store import read_manifest, read_pairs, read_trajectory_pairs
    from contextrl.pairs.types import ImagePair

    pairs, manifest = read_pairs(path)[:limit], read_manifest(path)
    manifest = manifest.model_copy(update={"n_pairs": len(pairs)})
    if any(isinstance(pair, ImagePair) for pair in pairs):
        written = _export_images(path, out, limit, manifest, seed)
    elif form is Form.PARQUET:
        written = export_parquet(out, read_trajectory_pairs(path)[:limit], manifest)
    else:
        written = export_released(
            out, read_trajectory_pairs(path)[:limit], manifest, RELEASED, seed
        )
    typer.echo(f"{len(pairs)} pairs in {written}")
    if push is not None:
        try:
            import datasets
        except ImportError as error:
            raise ScriptError("expected `datasets`: pip install 'contextrl[mine]'") from error
        datasets.load_dataset(str(out)).push_to_hub(push)
        typer.echo(f"pushed to {push}")


def _export_images(
    path: Path, out: Path, limit: int | None, manifest: PairManifest, seed: int
) -> Path:
    from contextrl.pairs.export_images import export_released_images
    from contextrl.pairs.images import ImageStore
    from contextrl.pairs.render_images import RELEASED_IMAGES
    from contextrl.pairs.store import read_image_pairs

    pairs = read_image_pairs(path)[:limit]
    home = path if path.is_dir() else path.parent
    return export_released_images(out, pairs, manifest, RELEASED_IMAGES, seed, ImageStore(home))
