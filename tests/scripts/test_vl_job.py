"""The second job's own stages: what is drawn, what is asked, what is reported."""

import hashlib
import io
import json

import pandas as pd
import pytest
from PIL import Image

from contextrl.pairs.probe import PromptResult, summarise
from contextrl.pairs.store import read_image_pairs
from contextrl.pairs.types import Order
from contextrl.scripts import vl_data, vl_report
from contextrl.scripts.job_train import MetricsLine
from contextrl.scripts.stages import Cache
from contextrl.scripts.vl_data import HELD_OUT, choose_rows, write_rows
from contextrl.scripts.vl_open import open_first
from contextrl.scripts.vl_scenes import family_of, prepare_scenes
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings_vl import ScenesConfig, VLConfig
from contextrl.verl_ext.vqa import ANSWERS, Answer
from contextrl.verl_ext.vqa_rows import VQARows

SMALL = ScenesConfig(
    families="shapes,dice",
    held_out_families="grid",
    n_train=20,
    n_pairs=10,
    n_validate=8,
    n_probe=9,
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    scenes, cached = prepare_scenes(SMALL, cache, lambda *_: None)
    assert not cached
    again, cached = prepare_scenes(SMALL, cache, lambda *_: None)
    assert cached
    assert again == scenes
    return scenes


def pixels(files):
    opened = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    return {hashlib.sha256(image.tobytes()).hexdigest() for image in opened}


def images_of(rows):
    return pixels(image for row in rows for image in row.images)


def test_no_image_is_on_two_sides(drawn):
    train = images_of(VQARows.open(drawn.train))
    held_out = set()
    for file in drawn.validate.values():
        held_out |= images_of(VQARows.open(file))
    held_out |= pixels(path.read_bytes() for path in (drawn.probe / "images").rglob("*.png"))
    train |= pixels(path.read_bytes() for path in (drawn.pairs / "images").rglob("*.png"))
    assert train
    assert train.isdisjoint(held_out)


def test_held_out_families_are_only_measured_on(drawn):
    def families(rows):
        return {row.row_id.split("-")[0] for row in rows}

    assert families(VQARows.open(drawn.train)) == {"shapes", "dice"}
    assert families(VQARows.open(drawn.validate["heldout_families"])) == {"grid"}
    assert {pair.provenance.source for pair in read_image_pairs(drawn.pairs)} == {"shapes", "dice"}
    assert {pair.provenance.source for pair in read_image_pairs(drawn.probe)} == {
        "shapes",
        "dice",
        "grid",
    }


def test_an_unknown_family_is_named_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"job\.vl\.scenes: .*found 'clouds'.*shapes"):
        prepare_scenes(ScenesConfig(families="clouds"), Cache(tmp_path), lambda *_: None)


def test_a_share_of_released_rows_is_held_out_and_pairs_are_not_asked(drawn):
    asked, measured = choose_rows(str(drawn.train), {}, limit=4)
    held_out = measured[HELD_OUT]
    assert (len(asked.numbers), len(held_out.numbers)) == (16, 4)
    assert set(asked.numbers).isdisjoint(held_out.numbers)
    assert choose_rows(str(drawn.train), {}, limit=4) == (asked, measured)


def test_three_quarters_of_what_is_asked_are_open_while_there_are_such():
    chances = [0.99, 0.5, 0.01, 0.6, 0.999, 0.4, 0.98, 0.7]
    assert open_first(chances, 4) == (0, 1, 3, 5)
    assert open_first(chances, 8) == tuple(range(8))
    assert open_first([0.99] * 6, 4) == (0, 1, 2, 3)
    assert open_first([0.5] * 6, 4) == (0, 1, 2, 3)


def test_rows_that_the_model_cannot_take_are_left_out_by_their_id(tmp_path, random_vl, caplog):
    file = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(file, "PNG")
    good = {"bytes": file.getvalue(), "path": None}
    rows = [
        ([good], "<image>?", "fine"),
        ([{"bytes": b"not an image", "path": None}], "<image>?", "broken"),
        ([good], "no mark", "unmarked"),
        ([good] * 60, "<image>" * 60, "too-long"),
        ([{"bytes": None, "path": "/etc/passwd"}], "<image>?", "a-path"),
    ]
    pd.DataFrame(
        {
            "images": [images for images, _, _ in rows],
            "problem": [problem for _, problem, _ in rows],
            "answer": ["x"] * len(rows),
            "row_id": [row_id for _, _, row_id in rows],
        }
    ).to_parquet(tmp_path / "rows.parquet")
    asked, _ = choose_rows(str(tmp_path / "rows.parquet"), {"v": str(tmp_path / "rows.parquet")}, 9)
    left_out = write_rows(
        tmp_path / "train.parquet",
        {"train": asked},
        phase="train",
        tokenizer=random_vl,
        vl=VLConfig(format_prompt=""),
        max_prompt_tokens=100,
    )
    written = pd.read_parquet(tmp_path / "train.parquet")
    assert left_out == 4
    assert [info["row_id"] for info in written["extra_info"]] == ["fine"]
    for row_id in ("broken", "unmarked", "too-long", "a-path"):
        assert f"left out: {row_id}: expected" in caplog.text


def test_images_of_rows_that_are_not_checked_are_not_read(tmp_path, drawn, random_vl, monkeypatch):
    monkeypatch.setattr(vl_data, "CHECKED", 2)
    read = []
    row = VQARows.row
    monkeypatch.setattr(VQARows, "row", lambda self, n: read.append(n) or row(self, n))
    asked, _ = choose_rows(str(drawn.train), {"v": str(drawn.train)}, 9)
    left_out = write_rows(
        tmp_path / "train.parquet",
        {"train": asked},
        phase="train",
        tokenizer=random_vl,
        vl=VLConfig(format_prompt=""),
        max_prompt_tokens=1000,
    )
    written = pd.read_parquet(tmp_path / "train.parquet")
    assert (left_out, read, len(written)) == (0, [0, 1], SMALL.n_train)
    questions = [prompt[0]["content"] for prompt in written["prompt"]]
    assert questions == [VQARows.open(drawn.train).words(n).problem for n in asked.numbers]


@pytest.fixture(scope="module")
def random_vl(tmp_path_factory):
    from contextrl.verl_ext.settings_vl import TinyVLConfig
    from contextrl.verl_ext.tiny_vl import build_model, build_processor, build_tokenizer
    from contextrl.verl_ext.vision_tokenizer import QwenVisionTokenizer

    config = TinyVLConfig(hidden_size=24, layers=1, vision_hidden_size=16, vision_layers=1)
    tokenizer = build_tokenizer(["no mark ?"], 400)
    model = build_model(config, tokenizer)
    return QwenVisionTokenizer(build_processor(config, tokenizer), model.config)


def test_the_report_pairs_the_same_questions_and_splits_the_probe(tmp_path):
    with (tmp_path / ANSWERS).open("w") as file:
        for step, right in ((0, 0), (4, 1)):
            for number in range(12):
                answer = Answer(
                    phase="validate",
                    split="heldout_images",
                    train_step=step,
                    row_id=f"number-line-{number}-0",
                    sample=0,
                    reply="",
                    accuracy=right,
                    format=1.0,
                )
                file.write(answer.model_dump_json() + "\n")
        file.write('{"phase": "torn')
    (tmp_path / "probe").mkdir()
    for step, margin in ((0, -1.0), (4, 1.0)):
        prompts = [
            PromptResult(pair_id=f"{family}-7-0", order=order, correct=order.correct, margin=margin)
            for family in ("number-line", "grid")
            for order in Order
        ]
        report = summarise(prompts, style_name="compact")
        (tmp_path / "probe" / f"step-{step}.json").write_text(report.model_dump_json())
    metrics = [
        MetricsLine(kind="validate", step=0, metrics={"val-core/heldout_images/acc/mean@1": 0.0}),
        MetricsLine(kind="train", step=1, metrics={"critic/rewards/mean": 0.2}),
        MetricsLine(kind="validate", step=4, metrics={"val-core/heldout_images/acc/mean@1": 1.0}),
    ]
    summary = vl_report.summarise(
        tmp_path,
        families=(["number-line"], ["grid"]),
        metrics=metrics,
        stage_seconds={"train": 1.0},
        checkpoint="x",
        config={},
    )
    change = summary.questions["heldout_images"]
    assert (change.items, change.before, change.after) == (12, 0.0, 1.0)
    assert set(summary.families) == {"number-line"}
    assert {name: probe.after.n for name, probe in summary.probe.items()} == {
        "heldout_images": 1,
        "heldout_families": 1,
    }
    vl_report.write_summary(summary, tmp_path)
    vl_report.plot(summary, metrics, tmp_path / vl_report.PLOT)
    assert json.loads((tmp_path / "summary.json").read_text())["questions"]
    assert any(
        "heldout images: accuracy 0.000" in line.replace("_", " ")
        for line in vl_report.lines(summary)
    )


def test_the_longest_family_name_counts():
    assert family_of("number-line-3-0", ["number", "number-line"]) == "number-line"
    assert family_of("rows.parquet:3", ["number"]) == ""
