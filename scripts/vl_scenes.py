"""Stage `scenes`: questions and pairs drawn by program; no image is on two sides of a split."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from contextrl.pairs.errors import PairsError
from contextrl.pairs.images import ImageStore, open_image
from contextrl.pairs.scene_pairs import SceneSettings, write_scenes
from contextrl.pairs.scenes import ScenePair, chosen, draw_pair
from contextrl.pairs.store import read_image_pairs
from contextrl.scripts.stages import Cache, source_digest
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings_vl import ScenesConfig
from contextrl.verl_ext.vqa_rows import VQARows

Progress = Callable[[str, int, int | None], None]

WARM_UP, TRAIN, IMAGES, HELD_OUT = range(4)
"""Whose seeds."""
SEEDS_EACH = 10_000_000


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
    """Drawn, or found in the cache. Raises `ConfigError` for a wrong family or too small a side."""
    inputs = {
        "scenes": dataclasses.asdict(config),
        "code": source_digest(
            "contextrl.pairs.scenes",
            "contextrl.pairs:scene_pairs.py",
            "contextrl.scripts:vl_scenes.py",
        ),
    }
    try:
        folder, cached = cache.folder(
            "scenes", inputs, lambda draft: _make(config, draft, progress)
        )
    except PairsError as error:
        raise ConfigError(f"job.vl.scenes: {error}") from error
    return Scenes(folder, config), cached


def known_and_unseen(config: ScenesConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Families that are trained on, and those that are only measured on."""
    unseen = chosen(config.held_out_families) if config.held_out_families else ()
    return chosen(config.families), unseen


def scenes(
    config: ScenesConfig, families: Sequence[str], use: int, *, unlike: frozenset[str] = frozenset()
) -> Iterator[ScenePair]:
    """Scenes for one use without end, the families in turn, none with an image of `unlike`."""
    first = (4 * config.seed + use) * SEEDS_EACH
    for number in range(SEEDS_EACH):
        family = families[number % len(families)]
        pair = draw_pair(family, first + number, config.difficulty, side=config.side)
        if unlike.isdisjoint((_pixels(pair.image_positive), _pixels(pair.image_negative))):
            yield pair


def held_out_pixels(drawn: Scenes) -> frozenset[str]:
    """Digests of every image that is only measured on."""
    store = ImageStore(drawn.probe)
    found = {
        _pixels(store.open(context.image))
        for pair in read_image_pairs(drawn.probe)
        for context in (pair.positive, pair.negative)
    }
    for file in drawn.validate.values():
        for row in VQARows.open(file):
            found |= {_pixels(open_image(image, row_id=row.row_id)) for image in row.images}
    return frozenset(found)


def _make(config: ScenesConfig, folder: Path, progress: Progress) -> None:
    known, unseen = known_and_unseen(config)
    drawn = Scenes(folder, config)
    write_questions(
        drawn.validate["heldout_images"], scenes(config, known, IMAGES), config.n_validate
    )
    if unseen:
        write_questions(
            drawn.validate["heldout_families"], scenes(config, unseen, HELD_OUT), config.n_validate
        )
    total = config.n_pairs + config.n_probe
    shared = {
        "seed": config.seed,
        "easiest": config.difficulty,
        "hardest": config.difficulty,
        "side": config.side,
    }
    write_scenes(
        drawn.probe,
        SceneSettings(families=(*known, *unseen), n=config.n_probe, **shared),
        on_progress=lambda done, _: progress("pairs", done, total),
    )
    write_scenes(
        drawn.pairs,
        SceneSettings(families=known, n=config.n_pairs, unlike=(drawn.probe,), **shared),
        on_progress=lambda done, _: progress("pairs", config.n_probe + done, total),
    )
    asked = scenes(config, known, TRAIN, unlike=held_out_pixels(drawn))
    write_questions(drawn.train, asked, config.n_train)


def write_questions(path: Path, drawn: Iterator[ScenePair], count: int) -> None:
    """`count` questions in the released columns, each about one image of its scene."""
    import pandas as pd

    rows = []
    for _ in range(count):
        pair = next(drawn)
        positive = random.Random(pair.seed).random() < 0.5
        image = pair.image_positive if positive else pair.image_negative
        file = io.BytesIO()
        image.save(file, "PNG")
        rows.append(
            {
                "images": [{"bytes": file.getvalue(), "path": None}],
                "problem": f"<image>{pair.question}",
                "answer": pair.answer_positive if positive else pair.answer_negative,
                "row_id": f"{pair.family}-{pair.seed}-{pair.difficulty:g}",
            }
        )
    pd.DataFrame(rows).to_parquet(path)


def family_of(name: str, families: Sequence[str]) -> str:
    """The family of a row or a pair by its id; empty when it is of none of them."""
    return max((each for each in families if name.startswith(f"{each}-")), key=len, default="")


def _pixels(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()
