"""A run in a few numbers, from its trajectories one at a time."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from pydantic import Field

from contextrl.agents.endings import Ending, count_endings, ending_of
from contextrl.agents.types import Trajectory
from contextrl.envs.types import Record


class RunSummary(Record):
    """Means are over the episodes that say something about the policy, so not the excluded."""

    tasks: int = 0
    episodes: int = 0
    excluded: int = 0
    """Infrastructure failed: not in any figure below."""
    graded: int = 0
    resolved: int = 0
    tasks_resolved: int = 0
    """Tasks with at least one resolved episode."""
    stop_reasons: dict[str, int] = Field(default_factory=dict)
    endings: dict[str, int] = Field(default_factory=dict)
    """Of all episodes, excluded ones too, by `endings.Ending`."""
    turns_mean: float = 0.0
    sampled_tokens_mean: float = 0.0
    """0 for a policy that shows no tokens."""
    format_errors_mean: float = 0.0
    seconds_mean: float = 0.0
    start_s_mean: float = 0.0
    policy_s_mean: float = 0.0
    sandbox_s_mean: float = 0.0
    grading_s_mean: float = 0.0
    overhead_frac: float = 0.0
    """Share of all seconds that went to none of the four."""

    @property
    def resolved_frac(self) -> float | None:
        return self.resolved / self.graded if self.graded else None


def summarise(trajectories: Iterable[Trajectory]) -> RunSummary:
    reasons: Counter[str] = Counter()
    tasks, tasks_resolved = set(), set()
    endings: list[tuple[str, str, Ending]] = []
    excluded = graded = resolved = 0
    sums: defaultdict[str, float] = defaultdict(float)
    for trajectory in trajectories:
        tasks.add(trajectory.task_id)
        reasons[str(trajectory.stop_reason)] += 1
        submission = hashlib.sha256(trajectory.submission.encode("utf-8", "replace")).hexdigest()
        endings.append((trajectory.task_id, submission, ending_of(trajectory)))
        if trajectory.excluded:
            excluded += 1
            continue
        graded += trajectory.reward is not None
        if trajectory.reward is not None and trajectory.reward.resolved:
            resolved += 1
            tasks_resolved.add(trajectory.task_id)
        for name, value in _costs(trajectory):
            sums[name] += value
    episodes = sum(reasons.values())
    counted = max(1, episodes - excluded)
    return RunSummary(
        tasks=len(tasks),
        episodes=episodes,
        excluded=excluded,
        graded=graded,
        resolved=resolved,
        tasks_resolved=len(tasks_resolved),
        stop_reasons=dict(reasons.most_common()),
        endings=count_endings(endings),
        turns_mean=sums["turns"] / counted,
        sampled_tokens_mean=sums["sampled_tokens"] / counted,
        format_errors_mean=sums["format_errors"] / counted,
        seconds_mean=sums["total_s"] / counted,
        start_s_mean=sums["start_s"] / counted,
        policy_s_mean=sums["policy_s"] / counted,
        sandbox_s_mean=sums["sandbox_s"] / counted,
        grading_s_mean=sums["grading_s"] / counted,
        overhead_frac=sums["overhead_s"] / sums["total_s"] if sums["total_s"] else 0.0,
    )


def _costs(trajectory: Trajectory) -> Iterator[tuple[str, float]]:
    yield "turns", len(trajectory.steps)
    yield "sampled_tokens", sum(trajectory.tokens.response_mask) if trajectory.tokens else 0
    yield "format_errors", trajectory.format_errors
    yield from trajectory.timings.model_dump().items()
    yield "overhead_s", trajectory.timings.overhead_s
