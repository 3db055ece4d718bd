"""Stage `policy`: the tiny vision model, warmed up on questions about images, cached."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

from contextrl.pairs.render_images import COMPACT_IMAGES, IMAGE_STYLES
from contextrl.pairs.scenes import ScenePair
from contextrl.scripts.stages import Cache, source_digest
from contextrl.scripts.vl_scenes import WARM_UP, Scenes, held_out_pixels, known_and_unseen, scenes
from contextrl.verl_ext.settings import CAConfig
from contextrl.verl_ext.settings_vl import VLConfig

Progress = Callable[[str, int, int], None]

N_TEXTS = 400
"""Scenes whose words the tokenizer is trained on."""
N_MEASURED = 150
"""New scenes that are asked after the warm-up: about one image, about both, about their words."""
MEASURED = "warmup.json"


def warm_vl_policy(
    vl: VLConfig, ca: CAConfig, drawn: Scenes, cache: Cache, progress: Progress
) -> tuple[Path, bool]:
    """The model's folder and whether it was cached. No held-out image of `drawn` is shown to it."""
    inputs = {
        "vl": dataclasses.asdict(
            dataclasses.replace(vl, validate_limit=None, train=None, validate={})
        ),
        "held_out": drawn.folder.name,  # of its content, see `Cache.folder`
        "style": ca.style,
        "pixels": [ca.min_pixels, ca.max_pixels],
        "code": source_digest(
            "contextrl.pairs.scenes",
            *(f"contextrl.pairs:{name}.py" for name in ("encode", "render_images", "scene_pairs")),
            *(
                f"contextrl.verl_ext:{name}.py"
                for name in (
                    "collate",
                    "feature_memory",
                    "image_attention",
                    "muon",
                    "padding",
                    "quick_norms",
                    "scorer_hf",
                    "tiny",
                    "tiny_vl",
                    "vision",
                    "vision_tokenizer",
                    "warmup_vl",
                )
            ),
            "contextrl.scripts:vl_policy.py",
            "contextrl.scripts:vl_scenes.py",
        ),
    }
    return cache.folder("vl-policy", inputs, lambda folder: _make(vl, ca, drawn, folder, progress))


def _make(vl: VLConfig, ca: CAConfig, drawn: Scenes, folder: Path, progress: Progress) -> None:
    import torch

    from contextrl.verl_ext.tiny_vl import build_model, build_processor, build_tokenizer, save_vl
    from contextrl.verl_ext.vision_tokenizer import QwenVisionTokenizer
    from contextrl.verl_ext.warmup_vl import (
        one_image,
        share_right,
        two_images,
        two_words,
        warm_up,
    )

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    known, unseen = known_and_unseen(vl.scenes)
    style = IMAGE_STYLES.get(ca.style, COMPACT_IMAGES)
    texts = []
    for pair in itertools.islice(scenes(vl.scenes, (*known, *unseen), WARM_UP), N_TEXTS):
        for example in (
            one_image(pair, True, vl.format_prompt),
            two_images(pair, False, False, vl.format_prompt),
        ):
            for turn in example.turns:
                texts.append(turn.asked.replace("<image>", "") + turn.closing + turn.reply)
        texts.append(style.ask.format(question=pair.question, answer=pair.answer_negative))
    texts += [style.opening + style.option.format(letter="A", image="")] * 20
    tokenizer = build_tokenizer(texts, vl.tiny.vocab_size)
    processor, model = build_processor(vl.tiny, tokenizer), build_model(vl.tiny, tokenizer)
    supply = scenes(vl.scenes, known, WARM_UP, unlike=held_out_pixels(drawn))
    kept: list[ScenePair] = list(itertools.islice(supply, vl.scenes.n_warmup))
    seeing = QwenVisionTokenizer(
        processor, model.config, min_pixels=ca.min_pixels, max_pixels=ca.max_pixels
    )
    loss = warm_up(
        model,
        seeing,
        lambda rng: rng.choice(kept),
        vl.warmup,
        style=style,
        format_prompt=vl.format_prompt,
        progress=lambda what, step: progress(what, step, vl.warmup.steps),
    )
    new = list(itertools.islice(supply, N_MEASURED))
    right = {
        "one image": [one_image(pair, True, vl.format_prompt) for pair in new],
        "two images": [two_images(pair, True, False, vl.format_prompt) for pair in new[::2]]
        + [two_images(pair, True, True, vl.format_prompt) for pair in new[1::2]],
        "two words": [two_words(pair, True, False, style) for pair in new[::2]]
        + [two_words(pair, True, True, style) for pair in new[1::2]],
    }
    measured = {name: share_right(model, seeing, each) for name, each in right.items()}
    (folder / MEASURED).write_text(json.dumps({"loss": loss, "right": measured}), encoding="utf-8")
    save_vl(model, processor, folder)


def measured_line(folder: Path) -> str:
    """What the warm-up came to, in words."""
    found = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    right = ", ".join(f"{name} {share:.3f}" for name, share in found["right"].items())
    return f"loss {found['loss']:.3f} a token; {N_MEASURED} new scenes answered right: {right}"
