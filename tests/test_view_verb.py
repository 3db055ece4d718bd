"""`contextrl view` and the pair side of `contextrl replay`: files in, page or one line out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contextrl.agents.store import RunStore
from contextrl.agents.types import Message, Step, StopReason, Trajectory
from contextrl.agents.viewer.labels import append_label
from contextrl.agents.viewer.pairs import Label
from contextrl.pairs.probe import PromptResult, summarise
from contextrl.pairs.store import write_pairs
from contextrl.pairs.types import Order, Provenance, TrajectoryContext, TrajectoryPair
from contextrl.scripts.cli_view import curves
from contextrl.scripts.console import ScriptError
from contextrl.scripts.pair_views import LABELS, read_pair_views


def contextrl(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "contextrl.scripts.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def run(tmp_path) -> Path:
    trajectory = Trajectory(
        trajectory_id="t/rollout-0/0",
        task_id="t",
        policy="tiny",
        messages=(Message(role="user", content="fix"),),
        steps=(Step(text="look", command="ls", observation="a.py", exit_code=0),),
        stop_reason=StopReason.MAX_TURNS,
    )
    with RunStore.open(tmp_path / "run", {}) as store:
        store.append(trajectory)
    return tmp_path / "run"


@pytest.fixture
def pairs(tmp_path) -> Path:
    def side(name: str, line: str) -> TrajectoryContext:
        messages = (
            Message(role="assistant", content="cat a.py"),
            Message(role="user", content=f"1: def f():\n2:     return {line}"),
        )
        return TrajectoryContext(
            task_id=name,
            trajectory_id=f"{name}/0",
            question="broken",
            messages=messages,
            decisive=(f"return {line}",),
        )

    pair = TrajectoryPair(
        pair_id="p1",
        question="which?",
        answer="-a\n+b",
        positive=side("one", "a"),
        negative=side("two", "b"),
        provenance=Provenance(
            repo="toy/toy", base_commit="0", file="a.py", function="f", miner="test"
        ),
    )
    write_pairs(tmp_path / "pairs", [pair], miner="test", seed=0)
    return tmp_path / "pairs"


def test_view_writes_a_page_once_unless_told(run, tmp_path):
    page = tmp_path / "page.html"
    done = contextrl("view", run, "--html", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert "t/rollout-0/0" not in page.read_text()  # what a model said is never markup
    again = contextrl("view", run, "--html", page)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    assert contextrl("view", run, "--html", page, "--overwrite").returncode == 0
    assert contextrl("view", tmp_path / "no", "--html", tmp_path / "x.html").returncode == 1
    assert not (tmp_path / "x.html").exists()


def test_view_of_pairs_marks_the_decisive_lines(pairs, tmp_path):
    done = contextrl("view", pairs, "--html", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    (view,) = read_pair_views(pairs)
    assert view.divergent == 1
    assert view.rows[0].same
    assert view.rows[1].left is not None
    assert view.rows[1].left.decisive == ("2:     return a",)
    assert view.where == "toy/toy a.py f"


def test_margins_come_from_a_probe_and_labels_from_a_review(pairs, tmp_path):
    prompts = [
        PromptResult(pair_id="p1", order=order, correct=order.correct, margin=margin)
        for order, margin in zip(Order, (1.5, -0.25), strict=True)
    ]
    (tmp_path / "probe.json").write_text(summarise(prompts, style_name="x").model_dump_json())
    append_label(pairs / LABELS, "p1", Label.INVALID)
    append_label(pairs / LABELS, "p1", Label.VALID)
    (view,) = read_pair_views(pairs, tmp_path / "probe.json")
    assert view.margins == {"positive-first": 1.5, "positive-second": -0.25}
    assert view.label is Label.VALID
    with pytest.raises(ScriptError, match="probe --json"):
        read_pair_views(pairs, pairs / LABELS)


def test_curves_come_from_a_training_runs_metrics(tmp_path):
    lines = [
        {"kind": "train", "step": step, "metrics": {"ca/accuracy": 0.5 + step / 10, "x": 1.0}}
        for step in (1, 2)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "tra')
    (tmp_path / "episodes").mkdir()
    for folder in (tmp_path, tmp_path / "episodes"):
        (curve,) = curves(folder)
        assert curve.points == ((1.0, 0.6), (2.0, 0.7))


def test_the_application_without_a_terminal_says_what_to_use(run):
    done = contextrl("replay", run)
    assert done.returncode == 1
    assert "--check" in done.stderr
