"""Several finished runs side by side: repetitions together, settings that differ apart."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contextrl.scripts.console import ScriptError
from contextrl.scripts.job_report import Summary
from contextrl.scripts.paired import PairedChange, paired_change
from contextrl.scripts.report_parts import SUMMARY, ProbeChange
from contextrl.scripts.vl_report import VLSummary

PAIRS = "held-out pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run's `summary.json`, whichever job wrote it."""

    name: str
    seed: int
    settings: Mapping[str, object]
    """The resolved configuration, flat; without seeds and without places on a disk."""
    rewards: Mapping[str, PairedChange]
    """By validation split."""
    selection: Mapping[str, ProbeChange]
    """By what the probe asked about."""
    train_reward: Sequence[float]
    """By training step."""
    ca_accuracy: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs that differ in their seed alone."""

    settings: str
    """What sets the group apart from the others; empty if there are no others."""
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        return self.settings or "all runs"

    def pooled(self, split: str) -> PairedChange | None:
        """Over all of the group's runs: one item's samples are those of all seeds.

        None where a run lacks the split, or its summary has no values by item.
        """
        changes = [run.rewards.get(split) for run in self.runs]
        if not all(change is not None and change.by_item for change in changes):
            return None
        before: defaultdict[str, list[float]] = defaultdict(list)
        after: defaultdict[str, list[float]] = defaultdict(list)
        for change in changes:
            assert change is not None
            for item, (was, is_now) in change.by_item.items():
                before[item].append(was)
                after[item].append(is_now)
        return paired_change(before, after)


def difference(one: Group, other: Group, split: str) -> PairedChange | None:
    """From what `other` reached to what `one` reached, on the items of both."""
    ends = [group.pooled(split) for group in (other, one)]
    if not all(ends):
        return None
    before, after = (
        {item: [end] for item, (_, end) in each.by_item.items()} for each in ends if each
    )
    if not before.keys() & after.keys():
        return None
    return paired_change(before, after)


def read_run(folder: Path) -> Run:
    """Raises `ScriptError` if the folder holds no summary of a finished run."""
    path = folder / SUMMARY if folder.is_dir() else folder
    if not path.is_file():
        raise ScriptError(
            f"expected the folder of a finished run, found no {SUMMARY} in {folder}; finish it "
            f"with --resume {folder}"
        )
    try:
        content = json.loads(path.read_bytes())
        kind = VLSummary if "questions" in content else Summary
        summary = kind.model_validate(content)
    except (ValueError, TypeError, ValidationError) as error:
        said = str(error).splitlines()[0]
        raise ScriptError(f"{path}: expected the summary of a run, found: {said}") from error
    if isinstance(summary, VLSummary):
        rewards, selection = summary.questions, summary.probe
    else:
        rewards = summary.tasks
        selection = {} if summary.probe is None else {PAIRS: summary.probe}
    settings = dict(_flat(summary.config))
    return Run(
        name=summary.run,
        seed=int(str(settings.get("job.seed", 0))),
        settings={key: value for key, value in settings.items() if _is_setting(key, value)},
        rewards=rewards,
        selection=selection,
        train_reward=summary.train_reward,
        ca_accuracy=summary.ca_accuracy,
    )


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their first run, seeds in order within them."""
    keys = sorted({key for run in runs for key in run.settings})
    differ = [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]
    found: dict[str, list[Run]] = {}
    for run in runs:
        label = ", ".join(f"{key}={run.settings.get(key)}" for key in differ)
        found.setdefault(label, []).append(run)
    return [
        Group(settings=label, runs=tuple(sorted(of_label, key=lambda run: run.seed)))
        for label, of_label in found.items()
    ]


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_setting(key: str, value: object) -> bool:
    """Not where things lie, not how a run is called, not a seed, not how much is measured."""
    if key.startswith("job.tasks.validate_limit"):
        return False
    places = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    named = key.rpartition(".")[2] in {"seed", "experiment_name"}
    return not named and not any(isinstance(each, str) and each.startswith("/") for each in places)
