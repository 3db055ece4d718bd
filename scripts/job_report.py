"""Stage `report`: before against after, `summary.json`, and the plot of the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contextrl.agents.store import read_trajectories
from contextrl.agents.types import Trajectory
from contextrl.envs.types import Record, Task
from contextrl.scripts.job_train import MetricsLine
from contextrl.scripts.paired import PairedChange, paired_change
from contextrl.scripts.report_parts import (
    PLOT,
    ProbeChange,
    curve,
    p_text,
    probe_change,
    revision,
    series,
    span,
    step_seconds,
    versions,
    write_summary,
)
from contextrl.verl_ext.episodes import EPISODES_FOLDER

__all__ = ["PLOT", "Summary", "lines", "plot", "summarise", "write_summary"]


class EpisodeTimes(Record):
    """Mean seconds of a training episode by where they went."""

    episodes: int
    total: float
    start: float
    policy: float
    sandbox: float
    grading: float
    overhead: float
    overhead_share: float


class Summary(Record):
    """`summary.json`: what a run did, enough to compare it with another."""

    run: str
    tasks: dict[str, PairedChange]
    """By validation split: mean test-pass reward at step 0 and at the end."""
    probe: ProbeChange | None
    train_reward: list[float]
    """Mean reward of each step's rollouts."""
    ca_accuracy: list[float]
    stop_reasons: dict[str, int]
    """Of training episodes."""
    excluded: int
    """Episodes that said nothing about the policy: infrastructure failed."""
    episode_times: EpisodeTimes | None
    step_seconds: dict[str, float]
    """Mean seconds of a training step by phase, as veRL times them."""
    stage_seconds: dict[str, float]
    checkpoint: str
    config: dict[str, Any]
    versions: dict[str, str]
    git_revision: str


def summarise(
    run_dir: Path,
    *,
    tasks: Mapping[str, Sequence[Task]],
    metrics: Sequence[MetricsLine],
    stage_seconds: Mapping[str, float],
    checkpoint: str,
    config: dict[str, Any],
) -> Summary:
    """Reads the run folder. Splits without validations at two steps have no change to report."""
    episodes = list(read_trajectories(run_dir / EPISODES_FOLDER))
    steps = sorted({line.step for line in metrics if line.kind == "validate"})
    trained = [episode for episode in episodes if episode.phase == "train"]
    steps_done = [line for line in metrics if line.kind == "train"]
    return Summary(
        run=run_dir.name,
        tasks=_task_changes(episodes, tasks, steps),
        probe=probe_change(run_dir, steps),
        train_reward=series(steps_done, "critic/rewards/mean"),
        ca_accuracy=series(steps_done, "ca/accuracy"),
        stop_reasons=_counts(str(episode.stop_reason) for episode in trained),
        excluded=sum(episode.excluded for episode in episodes),
        episode_times=_episode_times(trained),
        step_seconds=step_seconds(steps_done),
        stage_seconds={name: round(seconds, 1) for name, seconds in stage_seconds.items()},
        checkpoint=checkpoint,
        config=config,
        versions=versions(),
        git_revision=revision(),
    )


def lines(summary: Summary) -> list[str]:
    """The summary for a terminal."""
    found = []
    for split, change in summary.tasks.items():
        found.append(
            f"{split}: reward {span(change.before, change.before_interval)} -> "
            f"{span(change.after, change.after_interval)}, change "
            f"{span(change.change, change.change_interval, sign='+')}, p {p_text(change.p_value)} "
            f"({change.items} tasks, {change.samples_after} episodes each time)"
        )
    if summary.probe is not None:
        p = summary.probe
        found.append(
            f"held-out pairs: accuracy {span(p.before.mean, (p.before.low, p.before.high))} -> "
            f"{span(p.after.mean, (p.after.low, p.after.high))}, change "
            f"{span(p.change.mean, (p.change.low, p.change.high), sign='+')} ({p.after.n} pairs, "
            f"{p.asked}; answers A {p.share_a_before:.2f} -> {p.share_a_after:.2f})"
        )
    if summary.episode_times is not None:
        t = summary.episode_times
        found.append(
            f"an episode: {t.total:.2f} s, of which start {t.start:.2f}, policy {t.policy:.2f}, "
            f"sandbox {t.sandbox:.2f}, grading {t.grading:.2f}, our own overhead "
            f"{t.overhead_share:.1%}"
        )
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in summary.step_seconds.items())
    found.append(f"a step, in seconds: {steps}")
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in summary.stage_seconds.items())
    found.append(f"stages, in seconds: {stages}")
    found.append(f"checkpoint: {summary.checkpoint}")
    return found


def plot(metrics: Sequence[MetricsLine], path: Path) -> None:
    """Reward and CA accuracy over steps, validations and probe beside the training curves."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    train = [line for line in metrics if line.kind == "train"]
    validate = [line for line in metrics if line.kind == "validate"]
    curve(left, train, "critic/rewards/mean", "rollouts of each step", marker=".")
    for key in sorted({key for line in validate for key in line.metrics}):
        if key.startswith("val-core/") and "/reward/mean@" in key:
            split = key.split("/")[1].replace("_", " ")
            label = {"train": "training tasks"}.get(split, split)
            curve(left, validate, key, label, marker="o")
    left.set(title="Reward: share of episodes that pass the tests", ylim=(0, 1))
    curve(right, train, "ca/accuracy", "training pairs", marker=".")
    curve(right, validate, "probe/accuracy", "held-out pairs, both orders", marker="o")
    right.axhline(0.5, color="0.6", linewidth=1, linestyle=":", label="chance")
    right.set(title="Selection: share of contexts picked right", ylim=(0, 1))
    for axes in (left, right):
        axes.set_xlabel("training step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _task_changes(
    episodes: Iterable[Trajectory], tasks: Mapping[str, Sequence[Task]], steps: Sequence[int]
) -> dict[str, PairedChange]:
    if len(steps) < 2:
        return {}
    scores: dict[int, defaultdict[str, list[float]]] = {
        step: defaultdict(list) for step in (steps[0], steps[-1])
    }
    for episode in episodes:
        if episode.phase == "validate" and episode.train_step in scores and episode.reward:
            scores[episode.train_step][episode.task_id].append(episode.reward.score)
    changes = {}
    for split, of_split in tasks.items():
        before, after = (
            {task.task_id: scores[step][task.task_id] for task in of_split}
            for step in (steps[0], steps[-1])
        )
        if any(before[item] and after[item] for item in before):
            changes[split] = paired_change(before, after)
    return changes


def _episode_times(episodes: Sequence[Trajectory]) -> EpisodeTimes | None:
    times = [episode.timings for episode in episodes if not episode.excluded]
    if not times:
        return None
    n = len(times)
    total = sum(t.total_s for t in times) / n
    overhead = sum(t.overhead_s for t in times) / n
    return EpisodeTimes(
        episodes=n,
        total=total,
        start=sum(t.start_s for t in times) / n,
        policy=sum(t.policy_s for t in times) / n,
        sandbox=sum(t.sandbox_s for t in times) / n,
        grading=sum(t.grading_s for t in times) / n,
        overhead=overhead,
        overhead_share=overhead / total if total else 0.0,
    )


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return dict(sorted(counts.items()))
