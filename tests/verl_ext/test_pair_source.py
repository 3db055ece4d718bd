"""Where pairs come from, which of them are only measured on, and which a model cannot take."""

import json
import logging

import pandas as pd
import pytest

from contextrl.agents.store import RunStore
from contextrl.agents.types import Message
from contextrl.pairs.errors import PairFileError
from contextrl.pairs.export import export_parquet
from contextrl.pairs.probe import accuracy_change
from contextrl.pairs.store import write_pairs
from contextrl.pairs.types import Provenance, TrajectoryContext, TrajectoryPair
from contextrl.scripts import job_report, vl_report
from contextrl.scripts.job_checks import check_inputs
from contextrl.scripts.job_train import MetricsLine
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.pair_set import PairSet
from contextrl.verl_ext.pair_source import PairSource, measured_pairs, training_pairs
from contextrl.verl_ext.probing import PairProbe
from contextrl.verl_ext.scorer_hf import HFPairScorer, load_model, load_tokenizer
from contextrl.verl_ext.settings import CAConfig, JobConfig
from contextrl.verl_ext.vision_tokenizer import QwenVisionTokenizer


def released_rows(n):
    return [
        {"prompt": f"A: {k}\nB: x\nWhich shows {k}?", "correct_answer": "AB"[k % 2]}
        for k in range(n)
    ]


@pytest.fixture
def released(tmp_path):
    """Forty pairs in the released format."""
    path = tmp_path / "released.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in released_rows(40)))
    return path


@pytest.fixture
def own(tmp_path):
    """Two pairs of ours, and what `mine export` makes of them."""
    pairs = []
    for k in range(2):
        sides = [
            TrajectoryContext(
                task_id=f"{name}{k}",
                trajectory_id=f"{name}{k}",
                question="What?",
                messages=(Message(role="user", content=f"it printed {k}{name}"),),
            )
            for name in "xy"
        ]
        pairs.append(
            TrajectoryPair(
                pair_id=f"pair-{k}",
                question="What?",
                answer=f"--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-{k}y\n+{k}x\n",
                positive=sides[0],
                negative=sides[1],
                provenance=Provenance(
                    repo="a/b", base_commit="0" * 40, file="a.py", function="f", miner="m/1"
                ),
            )
        )
    manifest = write_pairs(tmp_path / "pairs", pairs, miner="m/1", seed=0)
    return pairs, export_parquet(tmp_path / "out", pairs, manifest)


def ids(source):
    return [pair.pair_id for pair in source]


# Sources


def test_exported_pairs_are_read_back(own):
    pairs, parquet = own
    source = PairSource.open(parquet)
    assert list(source) == pairs
    assert set(source.own()) == {"pair-0", "pair-1"}
    assert not source.of_images


def test_released_pairs_are_the_same_from_text_and_from_parquet(released, tmp_path):
    frame = pd.read_json(released, lines=True)
    frame.to_parquet(tmp_path / "released.parquet")
    text, table = (PairSource.open(path) for path in (released, tmp_path / "released.parquet"))
    assert ids(table) == ids(text)
    assert [pair.rendered() for pair in table] == [pair.rendered() for pair in text]


def test_one_file_of_the_hub_is_taken_by_training_job_and_probe_alike(
    released, random_model, monkeypatch
):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: ["a.jsonl", "b.md"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(released))
    name = "hf://someone/set/*.jsonl"
    assert ids(PairSource.open(name)) == ids(PairSource.open(released))
    check_inputs(str(random_model), JobConfig(), CAConfig(pairs=name, held_out=name), [])


def test_a_data_set_of_the_hub_is_known_by_its_columns(own, released, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # `datasets` takes a folder of that name for the set
    home = tmp_path / "someone/text"
    home.mkdir(parents=True)
    (home / "train.jsonl").write_text(released.read_text())
    assert ids(PairSource.open("hf://someone/text")) == ids(PairSource.open(released))
    pairs, parquet = own
    (tmp_path / "someone/runs").mkdir()
    (tmp_path / "someone/runs/train-00000.parquet").write_bytes(parquet.read_bytes())
    assert list(PairSource.open("hf://someone/runs@train")) == pairs


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"text": ["x"]}, "expected the columns prompt and .*, images, problem and .*, found text"),
        ({"prompt": ["x"], "correct_answer": ["C"]}, "row 1: expected a text .* str and 'C'"),
        ({"prompt": [None], "correct_answer": ["A"]}, "row 1: expected a text .* NoneType and 'A'"),
    ],
)
def test_a_table_of_something_else_is_one_line(tmp_path, columns, complaint):
    pd.DataFrame(columns).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(PairFileError, match=complaint) as error:
        PairSource.open(tmp_path / "x.parquet")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_parquet_is_one_line(tmp_path):
    (tmp_path / "x.parquet").write_text("PAR2")
    with pytest.raises(PairFileError, match="expected a parquet file, found") as error:
        PairSource.open(tmp_path / "x.parquet")
    assert "\n" not in str(error.value)


# Held out by number


@pytest.mark.parametrize(("asked", "measured"), [(7, 7), (200, 10)])
def test_pairs_that_are_measured_on_are_not_trained_on(released, asked, measured):
    config = CAConfig(pairs=str(released), n_held_out=asked)
    train, held_out = ids(training_pairs(config)), ids(measured_pairs(config))
    assert (len(train), len(held_out)) == (40 - measured, measured)
    assert sorted([*train, *held_out]) == sorted(ids(PairSource.open(released)))
    assert held_out == ids(measured_pairs(config))  # the same in every process


def test_more_pairs_that_are_measured_on_hold_the_fewer_ones(released):
    few, many = (
        set(ids(measured_pairs(CAConfig(pairs=str(released), n_held_out=n)))) for n in (3, 9)
    )
    assert few < many


def test_a_file_for_the_probe_leaves_all_pairs_to_training(released, own):
    _, parquet = own
    config = CAConfig(pairs=str(released), held_out=str(parquet), n_held_out=5)
    assert len(training_pairs(config)) == 40
    assert ids(measured_pairs(config)) == ["pair-0", "pair-1"]


@pytest.mark.parametrize("config", [CAConfig(), CAConfig(n_held_out=5), CAConfig(pairs="x.jsonl")])
def test_nothing_to_measure_on(config):
    assert measured_pairs(config) is None


def test_three_pairs_are_too_few_to_hold_any_out(tmp_path):
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(r) + "\n" for r in released_rows(3)))
    config = CAConfig(pairs=str(tmp_path / "few.jsonl"), n_held_out=5)
    assert measured_pairs(config) is None
    assert len(training_pairs(config)) == 3


def test_both_reports_show_selection_on_what_was_held_out(released, random_model, tmp_path):
    """As the trainer does at its first and at its last validation."""
    config = CAConfig(pairs=str(released), n_held_out=8)
    tokenizer, model = load_tokenizer(str(random_model)), load_model(str(random_model), "float32")
    scorer = HFPairScorer(model, tokenizer)
    probe = PairProbe(config, measured_pairs(config), tokenizer)
    assert (len(probe), len(PairSet.load(config, tokenizer))) == (8, 32)
    with RunStore.open(tmp_path / "episodes", {}) as store:
        store.finish()
    (tmp_path / "probe").mkdir()
    reports = []
    for step in (0, 4):
        reports.append(probe.report(scorer))
        (tmp_path / "probe" / f"step-{step}.json").write_text(reports[-1].model_dump_json())
        model.lm_head.weight.data.neg_()  # what learning would do
    metrics = [MetricsLine(kind="validate", step=step, metrics={}) for step in (0, 4)]
    shared = {"metrics": metrics, "stage_seconds": {}, "checkpoint": "c", "config": {}}
    agentic = job_report.summarise(tmp_path, tasks={}, **shared)
    vision = vl_report.summarise(tmp_path, families=((), ()), **shared)
    assert set(vision.probe) == {"heldout_pairs"}
    for found in (agentic.probe, vision.probe["heldout_pairs"]):
        assert (found.before.n, found.after.n) == (8, 8)
        assert found.change == accuracy_change(*reports)
    assert any(line.startswith("held-out pairs: accuracy") for line in job_report.lines(agentic))
    assert any(
        line.startswith("probe, heldout pairs: accuracy") for line in vl_report.lines(vision)
    )


# Pairs that no training could take


def image(file):
    return {"bytes": file, "path": None}


@pytest.fixture
def mixed_up(tmp_path, disc):
    """One good pair among rows of every kind that would end a training hours later."""
    red, blue = image(disc("red")), image(disc("blue"))
    # Within 200:1, and as whole tokens of 14 pixels no longer.
    long = image(disc("red", (19, 3781)))
    rows = [
        ([red, blue], "<image> or <image>?", "B", "good"),
        ([red, blue], "only <image>?", "B", "one-mark"),
        ([red, blue], "<image> <image> <image>?", "A", "three-marks"),
        ([red, {"bytes": None, "path": "/etc/passwd"}], "<image> <image>?", "A", "a-path"),
        ([red, long], "<image> <image>?", "A", "long"),
    ]
    columns = ["images", "problem", "answer", "row_id"]
    pd.DataFrame(rows, columns=columns).to_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


REASONS = (
    "left out: one-mark: expected one <image> for each of its 2 images, found 1",
    "left out: three-marks: expected one <image> for each of its 2 images, found 3",
    "left out: a-path: expected images within the file",
    "left out: long: expected an image with sides within 200:1, found 19 x 3781 as 14 x 3780",
)


def test_rows_that_could_not_be_encoded_are_left_out_before_training(
    mixed_up, random_qwen25_vl, caplog
):
    tokenizer = QwenVisionTokenizer.from_pretrained(random_qwen25_vl)
    config = CAConfig(pairs=str(mixed_up), max_prompt_tokens=20_000)
    pairs = PairSet.load(config, tokenizer)
    assert len(pairs) == 1
    for reason in REASONS:
        assert reason in caplog.text


def test_what_is_only_measured_on_is_looked_at_as_well(mixed_up, random_qwen25_vl, caplog):
    tokenizer = QwenVisionTokenizer.from_pretrained(random_qwen25_vl)
    config = CAConfig(held_out=str(mixed_up), max_prompt_tokens=200)
    probe = PairProbe(config, measured_pairs(config), tokenizer)
    report = probe.report(HFPairScorer(load_model(str(random_qwen25_vl), "float32"), tokenizer))
    assert (len(probe), len(report.prompts), report.over_budget) == (1, 1, 4)
    assert REASONS[0] in caplog.text


def test_what_is_too_long_is_said_on_request(released, random_model, caplog):
    caplog.set_level(logging.INFO, logger="contextrl")
    config = CAConfig(pairs=str(released), held_out=str(released), max_prompt_tokens=10)
    tokenizer = load_tokenizer(str(random_model))
    with pytest.raises(ConfigError, match=r"found none of 40; .*; the first: pair released-1-"):
        PairSet.load(config, tokenizer)
    with pytest.raises(ConfigError, match=r"ca\.held_out that the model can take.* none of 40"):
        PairProbe(config, measured_pairs(config), tokenizer)
    assert "left out: pair released-40-" in caplog.text


def test_images_for_a_model_of_text_are_said(mixed_up, random_model):
    config = CAConfig(pairs=str(mixed_up))
    with pytest.raises(ConfigError, match="first: good: expected a model with an image processor"):
        PairSet.load(config, load_tokenizer(str(random_model)))
