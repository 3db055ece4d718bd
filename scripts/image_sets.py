"""Pairs of images as folders: one, or two that share no image; never over what was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.images import FOLDER, ImageStore
from contextrl.pairs.splits import held_out_groups
from contextrl.pairs.stages import StageCount
from contextrl.pairs.store import (
    MANIFEST,
    PAIRS,
    PairManifest,
    Spent,
    has_set,
    is_complete,
    named,
    write_pairs,
)
from contextrl.pairs.types import ImagePair, ImageRef, Pair
from contextrl.scripts.image_sources import open_rows, rows_folder

__all__ = [
    "ImageSet",
    "copy_images",
    "holds_complete",
    "open_rows",
    "refuse_existing",
    "write_sets",
]

TRAIN, HELD_OUT = "train", "held-out"


@dataclass(frozen=True, slots=True)
class ImageSet:
    pairs: Sequence[ImagePair]
    """Read several times, one at a time."""
    stages: tuple[StageCount, ...]
    miner: str
    seed: int
    unasked: int = 0
    """Rows that another run may still ask."""
    spent: Spent | None = None


def refuse_existing(
    out: Path, held_out_frac: float, overwrite: bool, sources: Sequence[str] = ()
) -> None:
    """Before the work, not after it: `out` holds no set of either layout, and is no source.

    Raises `PairFileError`.
    """
    for source in sources:
        read = rows_folder(source)
        for folder in map(Path.resolve, _layouts(out)):
            if read is not None and (read == folder or read.is_relative_to(folder / FOLDER)):
                raise PairFileError(
                    f"expected --out elsewhere than the rows of {source}, found {folder}, whose "
                    "files a set replaces; choose another --out"
                )
    for folder in _layouts(out):
        if is_complete(folder) and not overwrite:
            raise PairFileError(
                f"expected no pairs in {folder}, found a complete set; pass --overwrite or "
                "another --out"
            )


def holds_complete(out: Path) -> bool:
    """Of either layout."""
    return any(map(is_complete, _layouts(out)))


def write_sets(
    out: Path, made: ImageSet, held_out_frac: float, *, overwrite: bool
) -> dict[Path, PairManifest]:
    """Each folder holds its pairs and exactly their images; `out` held all images before.

    No folder is complete before the first of them is written again: of a run that is killed on the
    way, old and new parts never stand side by side. Raises `PairFileError`.
    """
    refuse_existing(out, held_out_frac, overwrite)
    folders = _folders(out, held_out_frac)
    held_out: frozenset[str] = frozenset()
    if held_out_frac:
        held_out = held_out_groups(made.pairs, held_out_frac=held_out_frac, seed=made.seed)

    def pairs_of(part: str) -> Iterator[ImagePair]:
        here = part == HELD_OUT
        return (pair for pair in made.pairs if (pair.provenance.group in held_out) is here)

    old = [folder for folder in _layouts(out) if has_set(folder)]
    for folder in old:
        with named(folder):
            (folder / MANIFEST).unlink()
    manifests = {}
    for part, folder in folders.items():
        refs = copy_images(pairs_of(part), out, folder)
        manifests[folder] = write_pairs(
            folder,
            pairs_of(part),
            miner=made.miner,
            seed=made.seed,
            stages=made.stages,
            split=part,
            unasked=made.unasked,
            spent=made.spent,
            overwrite=overwrite,
        )
        ImageStore(folder).keep_only(refs)
    for folder in old:
        if folder not in manifests:  # the other layout's set was replaced, too
            with named(folder):
                (folder / PAIRS).unlink(missing_ok=True)
            ImageStore(folder).keep_only(())
    if out not in manifests:
        ImageStore(out).keep_only(())
    return manifests


def copy_images(pairs: Iterable[Pair], source: Path, target: Path) -> frozenset[ImageRef]:
    """The images of image pairs lie in `target` too; returns which."""
    refs = frozenset(
        side.image
        for pair in pairs
        if isinstance(pair, ImagePair)
        for side in (pair.positive, pair.negative)
    )
    if source != target:
        for ref in refs:
            ImageStore(target).put(ImageStore(source).read(ref), row_id=ref.sha256[:12])
    return refs


def _folders(out: Path, held_out_frac: float) -> dict[str, Path]:
    return {TRAIN: out / TRAIN, HELD_OUT: out / HELD_OUT} if held_out_frac else {"": out}


def _layouts(out: Path) -> tuple[Path, ...]:
    """Where a set may lie, whole or split."""
    return out, out / TRAIN, out / HELD_OUT
