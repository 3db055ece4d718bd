"""Stage `scenes`: questions and pairs drawn by program, each split from seeds of its own."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contextrl.pairs.images import ImageStore
from contextrl.pairs.scenes import FAMILIES, VERSION, ScenePair, draw_pair
from contextrl.pairs.store import write_pairs
from contextrl.pairs.types import ImageContext, ImagePair, ImageProvenance
from contextrl.scripts.stages import Cache, source_digest
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings_vl import ScenesConfig

Progress = Callable[[str, int, int | None], None]

WARM_UP, TRAIN, PAIRS, IMAGES, HELD_OUT = range(5)
"""Whose seeds: no scene is drawn for two of them."""
SEEDS_EACH = 10_000_000
MINER = f"scenes-{VERSION}"


@dataclass(frozen=True, slots=True)
class Scenes:
    """Files in the released format, and folders of pairs."""

    folder: Path
    config: ScenesConfig

    @property
    def train(self) -> Path:
        return self.folder / "train.parquet"

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs"

    @property
    def probe(self) -> Path:
        """Pairs on held-out images, and on held-out families where there are any."""
        return self.folder / "probe"

    @property
    def validate(self) -> dict[str, Path]:
        names = ["heldout_images", *(["heldout_families"] if self.config.held_out_families else [])]
        return {name: self.folder / f"{name}.parquet" for name in names}


def prepare_scenes(config: ScenesConfig, cache: Cache, progress: Progress) -> tuple[Scenes, bool]:
    """Drawn, or found in the cache. Raises `ConfigError` for an unknown family."""
    families_of(config.families)
    families_of(config.held_out_families)
    inputs = {
        "scenes": dataclasses.asdict(config),
        "code": source_digest("contextrl.pairs.scenes", "contextrl.scripts:vl_scenes.py"),
    }
    folder, cached = cache.folder("scenes", inputs, lambda draft: _make(config, draft, progress))
    return Scenes(folder, config), cached


def families_of(names: str) -> list[str]:
    """Raises `ConfigError` for one that is not drawn here."""
    families = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in families if name not in FAMILIES]
    if unknown:
        raise ConfigError(
            f"expected families of scenes in job.vl.scenes, found {', '.join(unknown)}; there are "
            f"{', '.join(FAMILIES)}"
        )
    return families


def scenes(
    config: ScenesConfig, families: Sequence[str], use: int, count: int | None = None
) -> Iterator[ScenePair]:
    """Scenes for one use, the families in turn; without a count they go on."""
    first = (5 * config.seed + use) * SEEDS_EACH
    number = 0
    while count is None or number < count:
        family = families[number % len(families)]
        yield draw_pair(family, first + number, config.difficulty, side=config.side)
        number += 1


def _make(config: ScenesConfig, folder: Path, progress: Progress) -> None:
    known, unseen = families_of(config.families), families_of(config.held_out_families)
    splits = {"heldout_images": (known, IMAGES)}
    if unseen:
        splits["heldout_families"] = (unseen, HELD_OUT)
    for name, (families, use) in splits.items():
        drawn = scenes(config, families, use, config.n_validate)
        write_questions(folder / f"{name}.parquet", drawn, seed=config.seed)
    drawn = scenes(config, known, TRAIN, config.n_train)
    write_questions(folder / "train.parquet", drawn, seed=config.seed)
    probed = [
        pair
        for families, use in splits.values()
        for pair in scenes(config, families, use, config.n_probe)
    ]
    total = config.n_pairs + len(probed)
    _write_pairs(folder / "probe", probed, config, lambda done: progress("pairs", done, total))
    _write_pairs(
        folder / "pairs",
        scenes(config, known, PAIRS, config.n_pairs),
        config,
        lambda done: progress("pairs", len(probed) + done, total),
    )


def write_questions(path: Path, drawn: Iterator[ScenePair], *, seed: int) -> None:
    """One question for each scene, about one of its two images, in the released columns."""
    import pandas as pd

    rng = random.Random(seed)
    rows = []
    for pair in drawn:
        positive = rng.random() < 0.5
        image = pair.image_positive if positive else pair.image_negative
        file = io.BytesIO()
        image.save(file, "PNG")
        rows.append(
            {
                "images": [{"bytes": file.getvalue(), "path": None}],
                "problem": f"<image>{pair.question}",
                "answer": pair.answer_positive if positive else pair.answer_negative,
                "row_id": f"{pair.family}-{pair.seed}",
            }
        )
    pd.DataFrame(rows).to_parquet(path)


def _write_pairs(
    folder: Path,
    drawn: Sequence[ScenePair] | Iterator[ScenePair],
    config: ScenesConfig,
    progress: Callable[[int], None],
) -> None:
    store = ImageStore(folder)

    def pairs() -> Iterator[ImagePair]:
        for done, pair in enumerate(drawn, start=1):
            yield image_pair(pair, store)
            progress(done)

    write_pairs(folder, pairs(), miner=MINER, seed=config.seed)


def image_pair(pair: ScenePair, store: ImageStore) -> ImagePair:
    """A drawn scene with its two images kept in `store`."""
    name = f"{pair.family}-{pair.seed}"
    return ImagePair(
        pair_id=name,
        question=pair.question,
        answer=pair.answer_positive,
        positive=ImageContext(
            image=store.put_drawn(pair.image_positive), answer=pair.answer_positive, box=pair.box
        ),
        negative=ImageContext(
            image=store.put_drawn(pair.image_negative), answer=pair.answer_negative, box=pair.box
        ),
        provenance=ImageProvenance(
            source=pair.family,
            group=name,
            seed=pair.seed,
            difficulty=pair.difficulty,
            miner=MINER,
        ),
    )
