"""The second job on foreign rows, for real: veRL trains one step on what a user would bring."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from transformers import AutoModelForImageTextToText

from contextrl.agents.types import Message
from contextrl.pairs.images import ImageStore, png_file
from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.store import write_pairs
from contextrl.pairs.types import (
    ImageContext,
    ImagePair,
    ImageProvenance,
    Provenance,
    TrajectoryContext,
    TrajectoryPair,
)
from contextrl.verl_ext.settings_vl import TinyVLConfig
from contextrl.verl_ext.tiny_vl import build_model, build_processor, build_tokenizer, save_vl

N_SCENES = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-vl")
    config = TinyVLConfig(hidden_size=48, layers=1, vision_hidden_size=32, vision_layers=1)
    tokenizer = build_tokenizer(["What number does the die show? <answer> 1 2 3"] * 9, 400)
    save_vl(build_model(config, tokenizer), build_processor(config, tokenizer), folder)
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The released columns: questions about one image, and pairs, whose answer is a letter."""
    rows = []
    for seed in range(N_SCENES):
        scene = draw_pair("dice", seed, 0.0, side=56)
        first, second = (
            {"bytes": png_file(image), "path": None}
            for image in (scene.image_positive, scene.image_negative)
        )
        rows.append(([first], f"<image>{scene.question}", scene.answer_positive))
        rows.append(([second], f"<image>{scene.question}", scene.answer_negative))
        ask = f"A: <image>\nB: <image>\n{scene.question} {scene.answer_positive}"
        rows.append(([first, second], ask, "A"))
        rows.append(([second, first], ask, "B"))
    file = tmp_path_factory.mktemp("released") / "rows.parquet"
    pd.DataFrame(rows, columns=["images", "problem", "answer"]).to_parquet(file)
    return file


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A folder with as many pairs of runs as of images."""
    folder = tmp_path_factory.mktemp("mixed") / "pairs"
    store = ImageStore(folder)
    pairs = []
    for seed in range(8):
        scene = draw_pair("dice", 100 + seed, 0.0, side=56)
        positive, negative = (
            ImageContext(image=store.put_drawn(image), answer=answer, box=scene.box)
            for image, answer in (
                (scene.image_positive, scene.answer_positive),
                (scene.image_negative, scene.answer_negative),
            )
        )
        pairs.append(
            ImagePair(
                pair_id=f"image-{seed}",
                question=scene.question,
                answer=scene.answer_positive,
                positive=positive,
                negative=negative,
                provenance=ImageProvenance(source="dice", group=f"image-{seed}", miner="test"),
            )
        )
        runs = [
            TrajectoryContext(
                task_id=f"{name}-{seed}",
                trajectory_id=f"{name}-{seed}",
                question="What does it print?",
                messages=(Message(role="user", content=f"it printed {seed}{name}"),),
            )
            for name in ("x", "y")
        ]
        pairs.append(
            TrajectoryPair(
                pair_id=f"text-{seed}",
                question="What does it print?",
                answer=f"--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-{seed}y\n+{seed}x\n",
                positive=runs[0],
                negative=runs[1],
                provenance=Provenance(
                    repo="a/b",
                    base_commit="0" * 40,
                    file="a.py",
                    function=f"f{seed}",
                    miner="test",
                ),
            )
        )
    write_pairs(folder, pairs, miner="test", seed=0)
    return folder


def run_job(model, released, tmp_path, **changes):
    """One training step; the job's own words."""
    overrides = {
        "actor_rollout_ref.model.path": model,
        "job.run_dir": tmp_path / "run",
        "job.cache_dir": tmp_path / "cache",
        "job.vl.train": released,
        "job.vl.validate_limit": 4,
        "data.train_batch_size": 4,
        "actor_rollout_ref.rollout.n": 2,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 8,
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 8,
        "ca.pairs_per_step": 8,
        "ca.micro_batch_size": 8,
        "ca.max_prompt_tokens": 1024,
        "ca.grad_norm_every": 1,
        "trainer.total_training_steps": 1,
        "trainer.test_freq": 1,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "contextrl.scripts.vl_job", "preset=tiny-vl-cpu"),
            *(f"{name}={value}" for name, value in overrides.items()),
        ],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.mark.slow(130)
def test_released_rows_are_asked_and_mixed_pairs_train(model, released, mixed, tmp_path):
    """Some of the pairs are kept for the probe, before and after."""
    said = run_job(model, released, tmp_path, ca__pairs=mixed, ca__n_held_out=4)
    assert "12 pairs for the CA loss" in said
    assert "4 pairs to measure selection on" in said
    assert "probe, heldout pairs: accuracy" in said

    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (step,) = [line["metrics"] for line in lines if line["kind"] == "train"]
    assert step["ca/grad_norm"] > 0
    validations = [line["metrics"] for line in lines if line["kind"] == "validate"]
    assert len(validations) == 2
    assert all(0 <= each["probe/accuracy"] <= 1 for each in validations)

    summary = json.loads((run / "summary.json").read_text())
    assert set(summary["probe"]) == {"heldout_pairs"}
    for when in ("before", "after"):
        assert summary["probe"]["heldout_pairs"][when]["n"] == 4

    trained = AutoModelForImageTextToText.from_pretrained(summary["checkpoint"]).state_dict()
    before = AutoModelForImageTextToText.from_pretrained(model).state_dict()
    moved = {  # the checkpoint is rounded to bfloat16
        name for name, tensor in trained.items() if not tensor.equal(before[name].to(tensor.dtype))
    }
    assert any("language_model" in name for name in moved)
    assert not any("visual" in name for name in moved)  # frozen, as in the presets of real models
