"""Stage `open`: of the candidates, the questions that RL asks.

GRPO learns nothing from a group of replies that are all right, nor from one whose replies are all
wrong. A warmed-up tiny policy gives its answer in one form, so the chance of the right one takes
one forward pass. Most of what is asked are questions in between. The others are taken as they come:
their groups begin to teach once what they ask for is being unlearned.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from contextrl.pairs.images import open_image
from contextrl.scripts.stages import Cache, file_digest, source_digest
from contextrl.scripts.vl_scenes import Scenes
from contextrl.verl_ext.settings import CAConfig
from contextrl.verl_ext.settings_vl import VLConfig
from contextrl.verl_ext.vqa_rows import VQARows

LEAST, MOST = 0.05, 0.95
"""Chances between which a question is open."""
OPEN_FRAC = 0.75
BATCH = 128
CHOSEN = "asked.json"

Progress = Callable[[str, int, int | None], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    numbers: tuple[int, ...]
    """Rows of the candidates."""
    open_frac: float
    """Of the candidates: the share that was open."""


def choose_open_questions(
    vl: VLConfig, ca: CAConfig, drawn: Scenes, model: Path, cache: Cache, progress: Progress
) -> Chosen:
    """`scenes.n_asked` of the questions in `drawn.train`."""
    inputs = {
        "model": file_digest(model),
        "candidates": file_digest(drawn.train),
        "n_asked": vl.scenes.n_asked,
        "format": vl.format_prompt,
        "pixels": [ca.min_pixels, ca.max_pixels],
        "code": source_digest(
            "contextrl.scripts:vl_open.py",
            "contextrl.pairs:encode.py",
            "contextrl.verl_ext:collate.py",
            "contextrl.verl_ext:feature_memory.py",
            "contextrl.verl_ext:padding.py",
            "contextrl.verl_ext:scorer_hf.py",
            "contextrl.verl_ext:vision.py",
            "contextrl.verl_ext:warmup_vl.py",
            "contextrl.verl_ext:vision_tokenizer.py",
        ),
    }

    def make(folder: Path) -> None:
        chances = _chances(vl, ca, drawn, model, progress)
        chosen = Chosen(open_first(chances, vl.scenes.n_asked), _share_open(chances))
        (folder / CHOSEN).write_text(json.dumps(dataclasses.asdict(chosen)), encoding="utf-8")

    folder, _ = cache.folder("vl-open", inputs, make)
    found = json.loads((folder / CHOSEN).read_text(encoding="utf-8"))
    return Chosen(tuple(found["numbers"]), found["open_frac"])


def open_first(chances: Sequence[float], count: int) -> tuple[int, ...]:
    """Numbers of `count` candidates, `OPEN_FRAC` of them open where there are enough, in order."""
    is_open = [LEAST < chance < MOST for chance in chances]
    ranked = [number for number, each in enumerate(is_open) if each][: round(OPEN_FRAC * count)]
    taken = set(ranked)
    closed_first = sorted(range(len(chances)), key=lambda number: is_open[number])
    rest = [number for number in closed_first if number not in taken]
    return tuple(sorted([*ranked, *rest[: count - len(ranked)]]))


def _share_open(chances: Sequence[float]) -> float:
    return sum(LEAST < chance < MOST for chance in chances) / len(chances)


def _chances(
    vl: VLConfig, ca: CAConfig, drawn: Scenes, model: Path, progress: Progress
) -> list[float]:
    import torch

    from contextrl.verl_ext.scorer_hf import load_model, load_tokenizer
    from contextrl.verl_ext.warmup_vl import Example, Turn, chances_of_replies, reply_to

    policy = load_model(str(model), torch.float32)
    tokenizer = load_tokenizer(str(model), min_pixels=ca.min_pixels, max_pixels=ca.max_pixels)
    rows = VQARows.open(drawn.train)
    chances: list[float] = []
    for start in range(0, len(rows), BATCH):
        examples = []
        for number in range(start, min(start + BATCH, len(rows))):
            row = rows.row(number)
            images = tuple(open_image(image, row_id=row.row_id) for image in row.images)
            turn = Turn(row.problem.strip(), reply_to(row.answer), vl.format_prompt)
            examples.append(Example(images, (turn,)))
        chances += chances_of_replies(policy, tokenizer, examples)
        progress("questions", len(chances), len(rows))
    return chances
