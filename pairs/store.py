"""A folder of pairs: `pairs.jsonl`, then `manifest.json`. Without a manifest it is not complete.

The manifest is written last and names the digest of the pairs, so a write that was cut short is
never taken for a whole one. Pairs of images name their files by digest; `images.py` keeps those in
the same folder, and they are written before the pairs.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from contextrl.envs.types import Record
from contextrl.pairs.errors import PairFileError
from contextrl.pairs.released import ReleasedPair, read_released
from contextrl.pairs.stages import StageCount
from contextrl.pairs.types import PAIR, SCHEMA_VERSION, ImagePair, Pair, TrajectoryPair

logger = logging.getLogger(__name__)

PAIRS = "pairs.jsonl"
MANIFEST = "manifest.json"


class SourceFile(Record):
    """An input of the miner."""

    path: str
    sha256: str


class Spent(Record):
    """US dollars, as far as prices are known."""

    last_run_usd: float
    all_runs_usd: float
    """Of every run that kept what it paid for in the same folder, the last one included."""
    unpriced_calls: int = 0
    """Of all runs; what they cost is in neither figure."""


class PairManifest(Record):
    schema_version: int = SCHEMA_VERSION
    n_pairs: int
    pairs_sha256: str
    miner: str
    seed: int
    style: str = ""
    """Prompt style the pairs were fitted to; empty when they were stored whole."""
    stages: tuple[StageCount, ...] = ()
    sources: tuple[SourceFile, ...] = ()
    split: str = ""
    """`train` or `held-out` when the mined set was split."""
    unasked: int = 0
    """Rows or pairs without an outcome so far: the set is partial, and the next run goes on with
    it. 0 when it is complete."""
    spent: Spent | None = None
    """For sets that endpoints were paid for; the parts of a split set share one figure."""


def write_pairs(
    folder: Path,
    pairs: Iterable[Pair],
    *,
    miner: str,
    seed: int,
    stages: Sequence[StageCount] = (),
    sources: Sequence[SourceFile] = (),
    style: str = "",
    split: str = "",
    unasked: int = 0,
    spent: Spent | None = None,
    overwrite: bool = False,
) -> PairManifest:
    """`folder` holds exactly these pairs, or is as unfinished as it was.

    Raises:
        PairFileError: the folder is complete already and `overwrite` is False.
    """
    if is_complete(folder) and not overwrite:
        raise PairFileError(
            f"expected no pairs in {folder}, found a complete set; pass --overwrite or another path"
        )
    digest, n_pairs = hashlib.sha256(), 0

    def lines() -> Iterator[bytes]:
        nonlocal n_pairs
        for pair in pairs:
            line = (pair.model_dump_json() + "\n").encode()
            digest.update(line)
            n_pairs += 1
            yield line

    with named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        write_whole(folder / PAIRS, lines())
    manifest = PairManifest(
        n_pairs=n_pairs,
        pairs_sha256=digest.hexdigest(),
        miner=miner,
        seed=seed,
        style=style,
        stages=tuple(stages),
        sources=tuple(sources),
        split=split,
        unasked=unasked,
        spent=spent,
    )
    with named(folder):
        write_whole(folder / MANIFEST, [(manifest.model_dump_json(indent=2) + "\n").encode()])
    return manifest


def is_complete(folder: Path) -> bool:
    """Finished, and with nothing left to ask: only `overwrite` replaces it."""
    return has_set(folder) and not is_partial(folder)


def is_partial(folder: Path) -> bool:
    """Finished, with rows that the next run may still ask."""
    try:
        return has_set(folder) and read_manifest(folder).unasked > 0
    except PairFileError:  # of another schema: nothing that a run may go on with
        return False


def has_set(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


def read_manifest(folder: Path) -> PairManifest:
    """Raises `PairFileError` when the folder was never finished or is of another schema."""
    path = folder / MANIFEST
    if not path.exists():
        raise PairFileError(
            f"expected {MANIFEST} in {folder}, found none: no pairs were stored there, or their "
            "writing was cut short; run `contextrl mine pairs` again"
        )
    with named(path):
        text = path.read_text(encoding="utf-8")
    try:
        manifest = PairManifest.model_validate_json(text)
    except ValidationError as error:
        raise PairFileError(f"{path}: expected a pair manifest: {_first(error)}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise PairFileError(
            f"{path}: expected schema {SCHEMA_VERSION}, found {manifest.schema_version}; mine again"
        )
    return manifest


def read_pairs(folder: Path) -> tuple[Pair, ...]:
    """The pairs of a finished folder (or of the `pairs.jsonl` in it), checked by digest.

    Of a partial set those that are there; the log says how much is missing.

    Raises:
        PairFileError: never finished, changed after it was written, or not pairs of ours.
    """
    folder = folder.parent if folder.name == PAIRS else folder
    manifest = read_manifest(folder)
    if manifest.unasked:
        logger.warning(
            "%s is a partial set: %d pairs, and %d rows without an outcome so far; the command "
            "that made it (%s) goes on with them",
            folder,
            manifest.n_pairs,
            manifest.unasked,
            manifest.miner,
        )
    path = folder / PAIRS
    with named(path):
        body = path.read_bytes()
    if hashlib.sha256(body).hexdigest() != manifest.pairs_sha256:
        raise PairFileError(
            f"expected {path} as its manifest describes it, found other bytes; mine again"
        )
    pairs = []
    for number, line in enumerate(body.splitlines(), start=1):
        try:
            pairs.append(PAIR.validate_json(line))
        except ValidationError as error:
            raise PairFileError(f"{path}:{number}: expected a pair: {_first(error)}") from error
    return tuple(pairs)


def read_trajectory_pairs(folder: Path) -> tuple[TrajectoryPair, ...]:
    """`read_pairs` for what only makes sense for trajectories. Raises `PairFileError`."""
    pairs = read_pairs(folder)
    found = tuple(pair for pair in pairs if isinstance(pair, TrajectoryPair))
    if len(found) != len(pairs):
        raise PairFileError(f"expected pairs of trajectories in {folder}, found pairs of images")
    return found


def read_image_pairs(folder: Path) -> tuple[ImagePair, ...]:
    """`read_pairs` for what only makes sense for images. Raises `PairFileError`."""
    pairs = read_pairs(folder)
    found = tuple(pair for pair in pairs if isinstance(pair, ImagePair))
    if len(found) != len(pairs):
        raise PairFileError(f"expected pairs of images in {folder}, found pairs of trajectories")
    return found


def read_any(path: Path) -> tuple[Pair, ...] | tuple[ReleasedPair, ...]:
    """Pairs of ours from a folder, or the authors' released JSONL from a file.

    Raises:
        PairFileError: neither is there.
    """
    if not path.exists():
        raise PairFileError(
            f"expected a pair folder or a released JSONL file at {path}, found nothing; "
            "make one with `contextrl mine pairs`"
        )
    if path.is_dir() or path.name == PAIRS:
        return read_pairs(path)
    return read_released(path)


def source_file(path: Path) -> SourceFile:
    """`path` by name and content."""
    digest = hashlib.sha256()
    with named(path), path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return SourceFile(path=str(path), sha256=digest.hexdigest())


def write_whole(path: Path, blocks: Iterable[bytes], *, to_disk: bool = True) -> None:
    """`path` holds these bytes, or what it held before.

    `to_disk` waits until a power cut cannot undo it; without, readers must check what they read.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.writelines(blocks)
            stream.flush()
            if to_disk:
                os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """A file error becomes one line with the path."""
    try:
        yield
    except OSError as error:
        raise PairFileError(f"{path}: {error.strerror or error}") from error


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(map(str, problem["loc"])) or "the record"
    return f"{where}: {problem['msg']}"
