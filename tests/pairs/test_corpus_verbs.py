"""`mine read` and `mine corpus` as a user runs them, on rows of the paper's set and its bugs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contextrl.agents.store import read_trajectories
from contextrl.envs.reverse import reverse_patch
from contextrl.pairs.store import read_manifest, read_pairs
from contextrl.scripts.bench_corpus import CorpusShape, write_corpus
from contextrl.scripts.cli_mine import app


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("made")
    shape = CorpusShape(runs=120, repositories=1, files=1, chars=4000, runs_per_instance=1)
    write_corpus(folder, shape)
    return [json.loads(line) for line in (folder / "part-000.jsonl").read_text().splitlines()]


@pytest.fixture
def papers_set(rows, tmp_path) -> tuple[Path, Path]:
    """Trajectories without a patch column, and the instances whose bugs they fix."""
    runs, bugs = tmp_path / "runs.jsonl", tmp_path / "instances.jsonl"
    runs.write_text(
        "".join(
            json.dumps({k: row[k] for k in ("instance_id", "messages")} | {"id": row["traj_id"]})
            + "\n"
            for row in rows
        )
    )
    bugs.write_text(
        "".join(
            json.dumps(
                {
                    "instance_id": row["instance_id"],
                    "repo": "swesmith/x",
                    "patch": reverse_patch(row["patch"]),
                    "problem_statement": row["messages"][1]["content"],
                    "FAIL_TO_PASS": ["tests/test_a.py::test_a"],
                    "PASS_TO_PASS": [],
                }
            )
            + "\n"
            for row in rows
        )
    )
    return runs, bugs


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.output


def test_reading_says_what_was_understood_and_writes_a_run_folder(papers_set, tmp_path):
    runs, _ = papers_set
    runs.write_text(runs.read_text() + '{"instance_id": "lost__row.01234567.x__1"}\n')
    printed = call("read", runs, "--out", tmp_path / "out", "--show", 1)
    assert "120 of 121 rows read" in printed
    assert "120 mini-swe-agent-plus" in printed
    assert "lost__row.01234567.x__1" in printed
    assert len(list(read_trajectories(tmp_path / "out"))) == 120
    lost = json.loads((tmp_path / "out" / "unreadable.jsonl").read_text())
    assert (lost["row_id"], lost["number"]) == ("lost__row.01234567.x__1", 120)


def test_the_papers_set_gives_pairs_once_its_instances_are_joined(papers_set, tmp_path):
    runs, bugs = papers_set
    without = call("corpus", runs, "--out", tmp_path / "none", "--workers", 1)
    assert "0/120       runs   a fix is known" in without
    out = tmp_path / "out"
    command = ("corpus", runs, "--instances", bugs, "--out", out, "--limit", 12, "--workers", 1)
    assert f"12 pairs in {out}" in call(*command)
    pairs = read_pairs(out)
    assert {pair.provenance.answer_from for pair in pairs} == {"gold"}
    manifest = read_manifest(out)
    assert manifest.stages[-1].kept == 12
    assert manifest.sources[0].path == str(runs)
    before = (out / "pairs.jsonl").read_bytes()
    call(*command, code=1)  # refuses to replace what is there
    call(*command, "--overwrite")
    assert (out / "pairs.jsonl").read_bytes() == before


def test_held_out_functions_go_to_their_own_folder(papers_set, tmp_path):
    runs, bugs = papers_set
    out = tmp_path / "out"
    command = ("corpus", runs, "--instances", bugs, "--out", out, "--limit", 30, "--workers", 1)
    call(*command, "--held-out-frac", 0.3)
    parts = [read_pairs(out / part) for part in ("train", "held-out")]
    assert all(parts)
    for name in ("task_id", "trajectory_id"):
        used = [
            {getattr(side, name) for pair in part for side in (pair.positive, pair.negative)}
            for part in parts
        ]
        assert not used[0] & used[1]
    assert read_manifest(out / "held-out").split == "held-out"


def test_rows_are_streamed_by_datasets(papers_set, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    runs, _ = papers_set
    monkeypatch.chdir(tmp_path)  # `datasets` takes a folder of that name for the set
    home = tmp_path / "someone/set"
    home.mkdir(parents=True)
    (home / "train.jsonl").write_text(runs.read_text())
    name = "hf://someone/set"
    printed = call("read", name, "--out", tmp_path / "run", "--limit", 7, "--show", 0)
    assert "7 of 7 rows read" in printed
    printed = call("corpus", f"{name}@train", "--out", tmp_path / "out", "--workers", 1)
    assert "120/120       runs   its row can be read" in printed
    call("read", f"{name}@nosuch", code=1)


def test_a_lone_dunder_of_a_hunk_header_is_no_function(rows, tmp_path):
    path = tmp_path / "rows.jsonl"

    def renamed(row: dict) -> str:
        name = row["patch"].split("@@ def ")[1].split("(")[0]
        return json.dumps(row | {"patch": row["patch"].replace(name, "__eq__")}) + "\n"

    path.write_text("".join(map(renamed, rows)))
    printed = call("corpus", path, "--out", tmp_path / "out", "--workers", 1)
    assert "120/120       runs   not of a benchmark" in printed
    assert "0/120       runs   its fix is in a function" in printed
