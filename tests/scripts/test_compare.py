"""Finished runs side by side, from the summaries they left."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contextrl.pairs.intervals import Change, wilson
from contextrl.scripts.cli import _compare
from contextrl.scripts.compare_runs import difference, group_runs, read_run
from contextrl.scripts.console import ScriptError
from contextrl.scripts.job_report import Summary
from contextrl.scripts.paired import paired_change
from contextrl.scripts.report_parts import SUMMARY, ProbeChange, write_summary

TASKS = [f"task-{number}" for number in range(12)]


def finished(folder: Path, *, seed: int, lam: float, after: float) -> Path:
    """A run whose tasks all went from 0.25 to `after`."""
    folder.mkdir()
    change = paired_change({task: [0.25] for task in TASKS}, {task: [after] for task in TASKS})
    selection = ProbeChange(
        before=wilson([0.5] * 40),
        after=wilson([0.9] * 40),
        change=Change(mean=0.4, low=0.3, high=0.5, n=40),
        share_a_before=0.3,
        share_a_after=0.5,
    )
    summary = Summary(
        run=folder.name,
        tasks={"train": change},
        probe=selection,
        train_reward=[0.25, after],
        ca_accuracy=[0.5, 0.9],
        stop_reasons={},
        excluded=0,
        episode_times=None,
        step_seconds={},
        stage_seconds={},
        checkpoint="",
        config={
            "ca": {"lam": lam, "seed": seed, "pairs": f"/cache/{seed}"},
            "job": {"seed": seed, "run_dir": str(folder)},
            "trainer": {"experiment_name": folder.name},
        },
        versions={},
        git_revision="",
    )
    write_summary(summary, folder)
    return folder


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    return [
        finished(tmp_path / "one", seed=1, lam=0.1, after=0.75),
        finished(tmp_path / "two", seed=0, lam=0.1, after=0.50),
        finished(tmp_path / "plain", seed=0, lam=0.0, after=0.50),
    ]


def test_runs_that_differ_in_seed_alone_are_one_group_named_by_the_setting_that_differs(runs):
    groups = group_runs([read_run(folder) for folder in runs])
    assert [group.label for group in groups] == ["ca.lam=0.1", "ca.lam=0.0"]
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1], [0]]


def test_measuring_more_or_fewer_tasks_is_no_other_setting(runs):
    for limit, folder in enumerate(runs, start=8):
        content = json.loads((folder / SUMMARY).read_text())
        content["config"]["job"]["tasks"] = {"validate_limit": limit}
        (folder / SUMMARY).write_text(json.dumps(content))
    assert [len(group.runs) for group in group_runs([read_run(folder) for folder in runs])] == [
        2,
        1,
    ]


def test_seeds_are_pooled_by_task(runs):
    (both, _) = group_runs([read_run(folder) for folder in runs])
    pooled = both.pooled("train")
    assert pooled is not None
    assert (pooled.items, pooled.samples_after) == (12, 24)
    assert (pooled.before, pooled.after) == (0.25, 0.625)


def test_what_a_setting_did_is_compared_on_the_same_tasks(runs):
    with_ca, without = group_runs([read_run(folder) for folder in runs])
    found = difference(with_ca, without, "train")
    assert found is not None
    assert (found.before, found.after, found.change) == (0.50, 0.625, 0.125)
    assert found.p_value < 0.01


def test_runs_of_before_values_by_item_were_kept_are_shown_unpooled(runs):
    for folder in runs:
        content = json.loads((folder / SUMMARY).read_text())
        del content["tasks"]["train"]["by_item"]
        (folder / SUMMARY).write_text(json.dumps(content))
    groups = group_runs([read_run(folder) for folder in runs])
    assert groups[0].pooled("train") is None
    assert difference(*groups, "train") is None


def test_the_verb_prints_tables_and_draws(runs, tmp_path):
    plot = tmp_path / "runs.png"
    command = [*map(str, runs), "--plot", str(plot)]
    done = CliRunner().invoke(_compare(), command)
    assert done.exit_code == 0, done.output
    assert "seed 1" in done.output
    assert "all 2, by item" in done.output
    assert "mean of 2" in done.output
    assert "ca.lam=0.1 against ca.lam=0.0" in done.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = CliRunner().invoke(_compare(), command)
    assert isinstance(again.exception, ScriptError)
    assert "--overwrite" in str(again.exception)


def test_json_holds_every_run_and_the_pool(runs):
    done = CliRunner().invoke(_compare(), [*map(str, runs), "--json"])
    first, second = json.loads(done.output)
    assert first["pooled"]["train"]["after"] == 0.625
    assert [run["seed"] for run in first["runs"]] == [0, 1]
    assert second["settings"] == "ca.lam=0.0"


def test_a_run_that_did_not_finish_is_one_line(tmp_path):
    with pytest.raises(ScriptError, match=r"found no summary\.json .* finish it with --resume"):
        read_run(tmp_path)


def test_a_file_that_is_no_summary_is_one_line(tmp_path):
    (tmp_path / SUMMARY).write_text('{"run": 3}')
    with pytest.raises(ScriptError, match="expected the summary of a run"):
        read_run(tmp_path)
