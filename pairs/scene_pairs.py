"""Drawn pairs as a folder of pairs: family after family, no scene twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from contextrl.pairs.cascade import StageCount
from contextrl.pairs.errors import PairFileError, PairsError
from contextrl.pairs.image_groups import grouped
from contextrl.pairs.images import ImageStore, pixel_digest
from contextrl.pairs.scenes import FAMILIES, VERSION, ScenePair, draw_pair
from contextrl.pairs.store import PairManifest, is_complete, read_image_pairs, write_pairs
from contextrl.pairs.types import ImageContext, ImagePair, ImageProvenance

MINER = f"scenes/{VERSION}"
TRIES = 50
"""Scenes drawn for one that is new, before a family is said to have run out of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSettings:
    families: Sequence[str] = tuple(FAMILIES)
    n: int
    """Pairs in all, spread evenly over the families."""
    seed: int = 0
    easiest: float = 0.0
    hardest: float = 1.0
    """Each pair's difficulty is drawn evenly between the two."""
    side: int | None = None
    """Pixels of every image; by default a pair's difficulty decides."""
    unlike: tuple[Path, ...] = ()
    """Folders of pairs none of whose scenes may come again, e.g. those held out."""

    def __post_init__(self) -> None:
        if not 0 <= self.easiest <= self.hardest <= 1 or self.n < 1 or not self.families:
            raise ValueError("expected n >= 1, a family, and 0 <= easiest <= hardest <= 1")


def write_scenes(
    folder: Path,
    settings: SceneSettings,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PairManifest:
    """`folder` holds `settings.n` different pairs and their images.

    Raises:
        PairFileError: the folder is complete already and `overwrite` is False.
        PairsError: no such family, too small a side, fewer different scenes than asked for, or
            `folder` is one that its scenes are to be unlike.
    """
    if folder.resolve() in {path.resolve() for path in settings.unlike}:
        raise PairFileError(
            f"expected another folder than {folder}, whose scenes may not come again; choose "
            "another --out"
        )
    store = ImageStore(folder)
    taken = {digest for path in settings.unlike for digest in _pixels_in(path)}
    pairs: list[ImagePair] = []
    drawn = 0
    if overwrite or not is_complete(folder):  # else `write_pairs` says so before a minute is lost
        for tries, pair in _distinct(settings, store, taken):
            pairs.append(pair)
            drawn += tries
            on_progress(len(pairs), settings.n)
    pairs = list(grouped(pairs))  # easy scenes share images
    stage = StageCount(name="no scene twice", unit="pairs", seen=drawn, kept=len(pairs))
    manifest = write_pairs(
        folder, pairs, miner=MINER, seed=settings.seed, stages=[stage], overwrite=overwrite
    )
    store.keep_only(context.image for pair in pairs for context in (pair.positive, pair.negative))
    return manifest


def image_pair(scene: ScenePair, store: ImageStore) -> ImagePair:
    """The record of a drawn pair; its images are in the store."""
    return ImagePair(
        pair_id=f"{scene.family}-{scene.seed}-{scene.difficulty:g}",
        question=scene.question,
        answer=scene.answer_positive,
        positive=ImageContext(
            image=store.put_drawn(scene.image_positive),
            answer=scene.answer_positive,
            box=scene.box,
        ),
        negative=ImageContext(
            image=store.put_drawn(scene.image_negative),
            answer=scene.answer_negative,
            box=scene.box,
        ),
        provenance=ImageProvenance(
            source=scene.family,
            group=f"{scene.family}-{scene.seed}",
            seed=scene.seed,
            difficulty=scene.difficulty,
            miner=MINER,
        ),
    )


def _distinct(
    settings: SceneSettings, store: ImageStore, taken: set[str]
) -> Iterator[tuple[int, ImagePair]]:
    """How many scenes were drawn for each pair, and the pair. No image is one of `taken`."""
    known: set[tuple[str, frozenset[str]]] = set()
    rng = Random(f"{MINER}/{settings.seed}")
    for number in range(settings.n):
        family = settings.families[number % len(settings.families)]
        for tries in range(1, TRIES + 1):
            difficulty = round(rng.uniform(settings.easiest, settings.hardest), 3)
            scene = draw_pair(family, rng.getrandbits(48), difficulty, side=settings.side)
            # Whichever of the two is asked about: the mirrored pair is the same scene.
            pixels = frozenset(map(pixel_digest, (scene.image_positive, scene.image_negative)))
            if (scene.question, pixels) not in known and taken.isdisjoint(pixels):
                known.add((scene.question, pixels))
                yield tries, image_pair(scene, store)
                break
        else:
            raise PairsError(
                f"expected another {family} scene, found {TRIES} in a row that were drawn before; "
                "ask for fewer pairs, or for harder ones"
            )


def _pixels_in(folder: Path) -> Iterator[str]:
    store = ImageStore(folder)
    for pair in read_image_pairs(folder):
        for context in (pair.positive, pair.negative):
            yield pixel_digest(store.open(context.image))
