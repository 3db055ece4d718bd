"""Stage `report` of the second job: question and probe accuracy, before against after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contextrl.envs.types import Record
from contextrl.pairs.probe import ProbeReport
from contextrl.pairs.probe import summarise as summarise_probe
from contextrl.scripts.job_train import MetricsLine
from contextrl.scripts.paired import PairedChange, paired_change
from contextrl.scripts.report_parts import (
    PLOT,
    ProbeChange,
    curve,
    p_text,
    revision,
    series,
    span,
    step_seconds,
    versions,
    write_summary,
)
from contextrl.scripts.vl_scenes import family_of
from contextrl.verl_ext.vqa import Answer, read_answers

__all__ = ["PLOT", "VLSummary", "lines", "plot", "summarise", "write_summary"]

IMAGES, FAMILIES = "heldout_images", "heldout_families"
PAIRS = "heldout_pairs"
"""Of rows that were brought: their images may stand in training pairs too."""


class VLSummary(Record):
    """`summary.json` of the second job."""

    run: str
    questions: dict[str, PairedChange]
    """By validation split: accuracy of the answers at step 0 and at the end."""
    formats: dict[str, PairedChange]
    """The same for the format that the reward asks for."""
    families: dict[str, PairedChange]
    """Question accuracy by family of scenes, over all validation splits."""
    probe: dict[str, ProbeChange]
    """Selection accuracy: of scenes on held-out images, and on held-out families where there are
    any; else on held-out pairs."""
    train_reward: list[float]
    ca_accuracy: list[float]
    step_seconds: dict[str, float]
    stage_seconds: dict[str, float]
    checkpoint: str
    config: dict[str, Any]
    versions: dict[str, str]
    git_revision: str


def summarise(
    run_dir: Path,
    *,
    families: tuple[Sequence[str], Sequence[str]],
    metrics: Sequence[MetricsLine],
    stage_seconds: Mapping[str, float],
    checkpoint: str,
    config: dict[str, Any],
) -> VLSummary:
    """Reads the run folder. Without validations at two steps there is no change to report.

    `families` of scenes: those trained on, those only measured on; none for other rows.
    """
    known, unseen = families
    steps = sorted({line.step for line in metrics if line.kind == "validate"})
    done = [line for line in metrics if line.kind == "train"]
    answers = [answer for answer in read_answers(run_dir) if answer.phase == "validate"]
    return VLSummary(
        run=run_dir.name,
        questions=_changes(answers, steps, lambda a: a.split, lambda a: a.accuracy),
        formats=_changes(answers, steps, lambda a: a.split, lambda a: a.format),
        families=_changes(
            [answer for answer in answers if family_of(answer.row_id, [*known, *unseen])],
            steps,
            lambda a: family_of(a.row_id, [*known, *unseen]),
            lambda a: a.accuracy,
        ),
        probe=_probe(run_dir, steps, families),
        train_reward=series(done, "critic/rewards/mean"),
        ca_accuracy=series(done, "ca/accuracy"),
        step_seconds=step_seconds(done),
        stage_seconds={name: round(seconds, 1) for name, seconds in stage_seconds.items()},
        checkpoint=checkpoint,
        config=config,
        versions=versions(),
        git_revision=revision(),
    )


def lines(summary: VLSummary) -> list[str]:
    """The summary for a terminal."""
    found = [
        f"questions, {split.replace('_', ' ')}: accuracy {_change(change)} "
        f"({change.items} questions, {change.samples_after} replies each time)"
        for split, change in summary.questions.items()
    ]
    found += [
        f"format, {split.replace('_', ' ')}: {_change(change)}"
        for split, change in summary.formats.items()
    ]
    found += [f"  {family}: {_change(change)}" for family, change in summary.families.items()]
    for name, probe in summary.probe.items():
        before = span(probe.before.mean, (probe.before.low, probe.before.high))
        after = span(probe.after.mean, (probe.after.low, probe.after.high))
        change = span(probe.change.mean, (probe.change.low, probe.change.high), sign="+")
        found.append(
            f"probe, {name.replace('_', ' ')}: accuracy {before} -> {after}, change {change} "
            f"({probe.after.n} pairs, {probe.asked}; answers A {probe.share_a_before:.2f} -> "
            f"{probe.share_a_after:.2f})"
        )
    for what, seconds in (("a step", summary.step_seconds), ("stages", summary.stage_seconds)):
        timed = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
        found.append(f"{what}, in seconds: {timed}")
    found.append(f"checkpoint: {summary.checkpoint}")
    return found


def plot(summary: VLSummary, metrics: Sequence[MetricsLine], path: Path) -> None:
    """Questions on the left, selection on the right, over the training steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    train = [line for line in metrics if line.kind == "train"]
    validate = [line for line in metrics if line.kind == "validate"]
    curve(left, train, "critic/rewards/mean", "reward of each step's replies", marker=".")
    for key in sorted({key for line in validate for key in line.metrics}):
        if key.startswith("val-core/") and "/acc/mean@" in key:
            curve(left, validate, key, key.split("/")[1].replace("_", " "), marker="o")
    left.set(title="Questions: share answered right", ylim=(0, 1))
    curve(right, train, "ca/accuracy", "training pairs", marker=".")
    for number, (name, probe) in enumerate(sorted(summary.probe.items())):
        steps = [line.step for line in validate]
        if steps:
            right.plot(
                [steps[0], steps[-1]],
                [probe.before.mean, probe.after.mean],
                marker="o",
                color=f"C{number + 1}",
                label=f"{name.replace('_', ' ')}, both orders",
            )
    right.axhline(0.5, color="0.6", linewidth=1, linestyle=":", label="chance")
    right.set(title="Selection: share of images picked right", ylim=(0, 1))
    for axes in (left, right):
        axes.set_xlabel("training step")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _changes(
    answers: Sequence[Answer], steps: Sequence[int], group: Any, value: Any
) -> dict[str, PairedChange]:
    if len(steps) < 2:
        return {}
    sides: dict[int, defaultdict[str, defaultdict[str, list[float]]]] = {
        step: defaultdict(lambda: defaultdict(list)) for step in (steps[0], steps[-1])
    }
    for answer in answers:
        if answer.train_step in sides:
            sides[answer.train_step][group(answer)][answer.row_id].append(value(answer))
    before, after = sides[steps[0]], sides[steps[-1]]
    return {
        name: paired_change(before[name], after[name])
        for name in sorted(before)
        if any(after[name].get(row) for row in before[name])
    }


def _probe(
    run_dir: Path, steps: Sequence[int], families: tuple[Sequence[str], Sequence[str]]
) -> dict[str, ProbeChange]:
    files = [run_dir / "probe" / f"step-{step}.json" for step in (*steps[:1], *steps[-1:])]
    if len(steps) < 2 or not all(file.exists() for file in files):
        return {}
    before, after = (ProbeReport.model_validate_json(file.read_bytes()) for file in files)
    known, unseen = families
    found = {}
    for name in (IMAGES if known else PAIRS, FAMILIES):
        sides = [_part(report, unseen, name == FAMILIES) for report in (before, after)]
        if all(side.prompts for side in sides):
            found[name] = ProbeChange.between(*sides)
    return found


def _part(report: ProbeReport, unseen: Sequence[str], of_unseen: bool) -> ProbeReport:
    prompts = [
        each for each in report.prompts if bool(family_of(each.pair_id, unseen)) == of_unseen
    ]
    return summarise_probe(prompts, style_name=report.style)


def _change(change: PairedChange) -> str:
    return (
        f"{span(change.before, change.before_interval)} -> "
        f"{span(change.after, change.after_interval)}, change "
        f"{span(change.change, change.change_interval, sign='+')}, p {p_text(change.p_value)}"
    )
