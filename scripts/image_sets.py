"""Image questions in, pairs of images out: one folder, or two that share no image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.images import ImageStore
from contextrl.pairs.row_scan import Sources
from contextrl.pairs.splits import split_image_pairs
from contextrl.pairs.stages import StageCount
from contextrl.pairs.store import PairManifest, is_complete, write_pairs
from contextrl.pairs.types import ImagePair, ImageRef, Pair
from contextrl.pairs.vqa_folder import FolderRows
from contextrl.scripts.console import ScriptError

TRAIN, HELD_OUT = "train", "held-out"


@dataclass(frozen=True, slots=True)
class ImageSet:
    pairs: tuple[ImagePair, ...]
    stages: tuple[StageCount, ...]
    miner: str
    seed: int


def open_rows(sources: Sequence[str]) -> Sources:
    """Each source by its file's name. Raises `PairFileError`, or `ScriptError` for a name twice."""
    from contextrl.verl_ext.vqa_rows import VQARows

    found = []
    for source in sources:
        is_folder = Path(source).is_dir() or source.endswith(".jsonl")
        rows = FolderRows(Path(source)) if is_folder else VQARows.open(source)
        found.append((Path(source).stem, rows))
    if len({name for name, _ in found}) != len(found):
        raise ScriptError("expected sources of different names, found one name twice; rename one")
    return found


def refuse_existing(out: Path, held_out_frac: float, overwrite: bool) -> None:
    """Before the work, not after it. Raises `PairFileError`."""
    for folder in _folders(out, held_out_frac).values():
        if is_complete(folder) and not overwrite:
            raise PairFileError(
                f"expected no pairs in {folder}, found a complete set; pass --overwrite or "
                "another --out"
            )


def write_sets(
    out: Path, made: ImageSet, held_out_frac: float, *, overwrite: bool
) -> dict[Path, PairManifest]:
    """Each folder holds its pairs and exactly their images; `out` held all images before."""
    folders = _folders(out, held_out_frac)
    parts = {"": made.pairs}
    if held_out_frac:
        parts = split_image_pairs(made.pairs, held_out_frac=held_out_frac, seed=made.seed)
    manifests = {}
    for part, folder in folders.items():
        refs = copy_images(parts[part], out, folder)
        manifests[folder] = write_pairs(
            folder,
            parts[part],
            miner=made.miner,
            seed=made.seed,
            stages=made.stages,
            split=part,
            overwrite=overwrite,
        )
        ImageStore(folder).keep_only(refs)
    if held_out_frac:
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
