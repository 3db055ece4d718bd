from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.export import export_parquet, export_released, import_parquet
from contextrl.pairs.released import read_released, write_released
from contextrl.pairs.render import RELEASED
from contextrl.pairs.store import write_pairs


@pytest.fixture
def manifest(make, tmp_path):
    return write_pairs(tmp_path / "pairs", make.mined(), miner="m/1", seed=3)


def test_parquet_reads_back_as_the_same_pairs(make, manifest, tmp_path):
    path = export_parquet(tmp_path / "out", make.mined(), manifest)
    assert tuple(import_parquet(path)) == make.mined()
    assert "2 pairs, made by `m/1` with seed 3" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(PairFileError, match="found one"):
        export_parquet(tmp_path / "out", make.mined(), manifest)


@pytest.mark.parametrize("form", ["parquet", "released"])
def test_datasets_loads_what_was_written(make, manifest, tmp_path, monkeypatch, form):
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "out"
    if form == "parquet":
        export_parquet(out, make.mined(), manifest)
    else:
        export_released(out, make.mined(), manifest, RELEASED, 0)
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 2
    if form == "released":
        assert set(rows.column_names) == {"prompt", "correct_answer"}
        assert sorted(rows["correct_answer"]) == ["A", "B"]


def test_what_was_exported_can_be_pushed(make, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    from contextrl.scripts.cli_mine import app

    pushed = {}

    def push(self, name):
        pushed[name] = {split: len(rows) for split, rows in self.items()}

    monkeypatch.setattr(datasets.DatasetDict, "push_to_hub", push)
    write_pairs(tmp_path / "pairs", make.mined(), miner="m/1", seed=3)
    command = ["export", str(tmp_path / "pairs"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--push", "somebody/pairs"])
    assert result.exit_code == 0, result.output
    assert pushed == {"somebody/pairs": {"train": 2}}


def test_the_released_format_goes_round_byte_for_byte(make, manifest, tmp_path):
    path = export_released(tmp_path / "out", make.mined(), manifest, RELEASED, 0)
    write_released(tmp_path / "again.jsonl", read_released(path))
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert set(json.loads(path.read_text().splitlines()[0])) == {"prompt", "correct_answer"}
