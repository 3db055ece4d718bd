from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from contextrl.agents.store import RunStore
from contextrl.pairs.errors import PairFileError
from contextrl.pairs.probe import summarise
from contextrl.pairs.store import read_pairs
from contextrl.scripts.cli_mine import app
from contextrl.scripts.cli_probe import table


@pytest.fixture
def mined(make, tmp_path):
    bugs = tuple(make.bugs)
    for name, sample in (("one", 0), ("two", 1)):
        with RunStore.open(tmp_path / name, {}) as store:
            for bug in bugs:
                store.append(make.run(bug, sample=0, thought=f"Take {sample}."))
            store.finish()
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(make.task(bug).model_dump_json() + "\n" for bug in bugs))
    (tmp_path / "repo/shapes").mkdir(parents=True)
    (tmp_path / "repo" / make.file).write_text(make.original)

    def run(*extra: str):
        runs = ["--runs", str(tmp_path / "one"), "--runs", str(tmp_path / "two")]
        arguments = ["pairs", *runs, "--tasks", str(tasks), "--out", str(tmp_path / "out"), *extra]
        return CliRunner().invoke(app, arguments)

    return run


def test_pairs_are_mined_from_two_run_folders(mined, tmp_path):
    result = mined("--source", str(tmp_path / "repo"))
    assert result.exit_code == 0, result.output
    assert "8/8" in result.stdout
    assert f"12 pairs in {tmp_path / 'out'}" in result.stdout
    pairs = read_pairs(tmp_path / "out")
    assert {pair.provenance.function_from for pair in pairs} == {"syntax-tree"}
    assert {pair.positive.trajectory_id.partition(":")[0] for pair in pairs} == {"0-one", "1-two"}


def test_a_second_run_refuses_and_overwrite_replaces(mined, tmp_path):
    assert mined("--json").exit_code == 0
    refused = mined()
    assert isinstance(refused.exception, PairFileError)
    again = mined("--overwrite", "--limit", "3", "--json")
    assert json.loads(again.stdout)["n_pairs"] == 3


def test_held_out_pairs_go_to_their_own_folder(mined, tmp_path):
    result = mined("--held-out-frac", "0.3", "--held-out-by", "task")
    assert result.exit_code == 0, result.output
    train, held_out = (read_pairs(tmp_path / "out" / part) for part in ("train", "held-out"))
    tasks = [
        {c.task_id for p in part for c in (p.positive, p.negative)} for part in (train, held_out)
    ]
    assert not tasks[0] & tasks[1]


def test_the_audit_prints_every_rule(mined, tmp_path):
    mined()
    result = CliRunner().invoke(app, ["audit", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "12 pairs" in result.stdout
    assert "longer context" in result.stdout
    result = CliRunner().invoke(app, ["audit", str(tmp_path / "out"), "--json"])
    assert json.loads(result.stdout)["n_pairs"] == 12


def test_a_source_outside_the_checkout_is_not_read(make, tmp_path):
    from contextrl.scripts.cli_mine import _reader

    (tmp_path / "repo").mkdir()
    (tmp_path / "secret.py").write_text("x = 1\n")
    (tmp_path / "repo/link.py").symlink_to(tmp_path / "secret.py")
    read = _reader(tmp_path / "repo")
    assert read(make.task("low"), "link.py") is None
    assert read(make.task("low"), "../secret.py") is None


def test_the_table_of_an_empty_probe_prints():
    assert "0 pairs" in table(summarise([], style_name="compact"))
