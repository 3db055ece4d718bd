"""What every job's report is made of: numbers with intervals, curves, versions."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import git

from contextrl.envs.types import Record
from contextrl.pairs.intervals import Change, Share
from contextrl.pairs.probe import ProbeReport, accuracy_change
from contextrl.scripts.job_train import MetricsLine

SUMMARY = "summary.json"
PLOT = "curves.png"
PACKAGES = ("contextrl", "docker", "ray", "torch", "transformers", "verl", "vllm")
STEP_TIMES = {
    "rollout": "timing_s/gen",
    "old log-prob": "timing_s/old_log_prob",
    "reference log-prob": "timing_s/ref",
    "advantages": "timing_s/adv",
    "update": "timing_s/update_actor",
    "weight sync": "timing_s/update_weights",
    "checkpoint": "timing_s/save_checkpoint",
    "validation": "timing_s/testing",
    "step": "timing_s/step",
}


class ProbeChange(Record):
    before: Share
    after: Share
    change: Change
    share_a_before: float
    share_a_after: float
    consistent_before: float | None = None
    """Share of the pairs picked right in both orders; None where each was asked in one order."""
    consistent_after: float | None = None

    @property
    def asked(self) -> str:
        return "both orders" if self.consistent_after is not None else "each in its one order"

    @classmethod
    def between(cls, before: ProbeReport, after: ProbeReport) -> ProbeChange:
        return cls(
            before=before.accuracy,
            after=after.accuracy,
            change=accuracy_change(before, after),
            share_a_before=before.share_a,
            share_a_after=after.share_a,
            consistent_before=before.consistent.mean if before.consistent.n else None,
            consistent_after=after.consistent.mean if after.consistent.n else None,
        )


def write_summary(summary: Record, run_dir: Path) -> None:
    text = json.dumps(summary.model_dump(mode="json"), indent=1, sort_keys=True)
    (run_dir / SUMMARY).write_text(text + "\n", encoding="utf-8")


def span(value: float, interval: tuple[float, float], sign: str = "") -> str:
    return f"{value:{sign}.3f} [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"


def p_text(p_value: float) -> str:
    """Below 0.001 the exact figure only says how many permutations were drawn."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"


def curve(axes: Any, lines: Sequence[MetricsLine], key: str, label: str, *, marker: str) -> None:
    points = [(line.step, line.metrics[key]) for line in lines if key in line.metrics]
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, marker=marker, label=label)


def probe_change(run_dir: Path, steps: Sequence[int]) -> ProbeChange | None:
    files = [run_dir / "probe" / f"step-{step}.json" for step in (*steps[:1], *steps[-1:])]
    if len(steps) < 2 or not all(file.exists() for file in files):
        return None
    before, after = (ProbeReport.model_validate_json(file.read_bytes()) for file in files)
    return ProbeChange.between(before, after)


def step_seconds(lines: Sequence[MetricsLine]) -> dict[str, float]:
    """Mean seconds of a training step by phase, as veRL times them."""
    return {
        name: sum(values) / len(values)
        for name, key in STEP_TIMES.items()
        if (values := series(lines, key))
    }


def series(lines: Sequence[MetricsLine], key: str) -> list[float]:
    return [line.metrics[key] for line in lines if key in line.metrics]


def versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def revision() -> str:
    """The commit of the checkout this runs from; empty for an installed wheel."""
    try:
        repository = git.Repo(Path(__file__).parent, search_parent_directories=True)
        return repository.head.commit.hexsha + ("-dirty" if repository.is_dirty() else "")
    except (git.InvalidGitRepositoryError, ValueError):
        return ""
