"""What one run offers to a pair, and why two runs do not make one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from contextrl.agents.types import Message, Trajectory
from contextrl.envs.types import Task
from contextrl.pairs.diffs import Region, patch_lines
from contextrl.pairs.masking import Fingerprint, MaskedRun, fingerprint, leaked_line, mask_run
from contextrl.pairs.normal import (
    REMEMBERED,
    NormalText,
    is_distinctive,
    normal,
    shown_lines,
)
from contextrl.pairs.types import Instance, Provenance, TrajectoryContext, TrajectoryPair

_form = lru_cache(maxsize=REMEMBERED)(normal)

QUESTION = "Which of the two runs led to this patch?"

AnswerFrom = Literal["submission", "gold"]
ReadTaskSource = Callable[[Task | Instance, str], str | None]
"""(task, path) -> the file at the task's commit, for names by syntax tree; None if not at hand."""


class PairStage(StrEnum):
    """What an ordered pair of runs in one function must be, in the order it is asked."""

    EVIDENCE = "both runs saw their bug"
    NO_LEAK = "no added line can be read"
    NOT_AMBIGUOUS = "evidence on one side only"


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A trajectory, what its task is about, and the patch it stands for."""

    trajectory: Trajectory
    task: Task | Instance
    regions: tuple[Region, ...]
    answer: str
    answer_from: AnswerFrom


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A run after masking, indexed for comparison with its twins."""

    run: Run
    masked: MaskedRun
    mark: Fingerprint
    """Of the run's answer."""
    text: NormalText
    """Everything a prompt may show of this run, its issue included."""
    known: NormalText
    """The start state, as far as the run and its task show it."""
    shown: frozenset[str]
    """Normal forms of whole lines in its observations."""
    bug: tuple[str, ...]
    """Lines of the start state that its fix removes."""
    fix: tuple[str, ...]
    """Lines its fix adds: they stand in a twin that does not have this bug."""
    saw_bug: bool
    gives_itself_away: bool
    """An added line of its own answer can be read in it, e.g. in its issue, or the new order of
    lines may be: no edit was found, before which the old one stood."""


def gather(run: Run) -> Evidence:
    """Mask the run against its own patches and index what is left."""
    masked = mask_run(_episode(run.trajectory), _patches(run.trajectory, run.task))
    gold, answer = patch_lines(run.task.gold_patch), patch_lines(run.answer)
    shown = shown_lines(masked.observed)
    gone, come = _without(answer.removed, answer.added), _without(answer.added, answer.removed)
    if not (gone or come):  # lines in another order: all of them tell
        gone, come = answer.removed, answer.added
    bug = _telling(gone)
    around = [line for line in map(normal, answer.context) if line]
    mark = fingerprint(run.answer)
    text = NormalText("\n".join([run.task.problem, *(m.content for m in masked.messages)]))
    return Evidence(
        run=run,
        masked=masked,
        mark=mark,
        text=text,
        known=NormalText("\n".join([masked.observed_before_editing, *gold.removed, *gold.context])),
        shown=shown,
        bug=bug,
        fix=_telling(come),
        # A fix that only adds lines is recognised by what stands around the gap.
        saw_bug=bool(_seen(bug, shown)) if bug else sum(line in shown for line in around) >= 2,
        gives_itself_away=leaked_line(mark, text) is not None
        or (bool(mark.moved) and masked.first_edit == len(masked.messages)),
    )


def rejection(positive: Evidence, negative: Evidence) -> PairStage | None:
    """The stage at which this ordered pair is left out; None when it is good."""
    if not (positive.saw_bug and negative.saw_bug):
        return PairStage.EVIDENCE
    if positive.gives_itself_away or leaked_line(positive.mark, negative.text, negative.known):
        return PairStage.NO_LEAK
    return None if _decides(positive, negative) else PairStage.NOT_AMBIGUOUS


def pair_of(
    positive: Evidence, negative: Evidence, function: tuple[str, ...], miner: str
) -> TrajectoryPair:
    """The record of a good ordered pair. `function`: repository, commit, file, qualified name."""
    run = positive.run
    repo, commit, file, name = function
    source = next(r.source for r in run.regions if (r.file, r.function) == (file, name))
    decides = _decides(positive, negative)
    return TrajectoryPair(
        pair_id=pair_id_of(run, negative.run),
        question=QUESTION,
        answer=run.answer,
        positive=_context(positive, (*decides, *_seen(negative.fix, positive.shown))),
        negative=_context(negative, (*negative.bug, *_seen(positive.fix, negative.shown))),
        provenance=Provenance(
            repo=repo,
            base_commit=commit,
            file=file,
            function=name,
            function_from=source.value,
            answer_from=run.answer_from,
            miner=miner,
        ),
    )


def pair_id_of(positive: Run, negative: Run) -> str:
    """Stable under everything but the two runs and the answer."""
    parts = (positive.trajectory.trajectory_id, negative.trajectory.trajectory_id, positive.answer)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _decides(positive: Evidence, negative: Evidence) -> tuple[str, ...]:
    """Lines that tell the two contexts apart: read on one side, absent from the other."""
    if positive.bug:
        seen = _seen(positive.bug, positive.shown)
        return tuple(line for line in seen if _form(line) not in negative.shown)
    return _seen(positive.fix, negative.shown)


def _context(evidence: Evidence, decisive: tuple[str, ...]) -> TrajectoryContext:
    return TrajectoryContext(
        task_id=evidence.run.task.task_id,
        trajectory_id=evidence.run.trajectory.trajectory_id,
        question=evidence.run.task.problem,
        messages=evidence.masked.messages,
        decisive=tuple(dict.fromkeys(line.strip() for line in decisive)),
    )


def _episode(trajectory: Trajectory) -> tuple[Message, ...]:
    """What was said after the prompt: from the first reply on."""
    roles = [message.role for message in trajectory.messages]
    start = roles.index("assistant") if "assistant" in roles else len(roles)
    return trajectory.messages[start:]


def _patches(trajectory: Trajectory, task: Task | Instance) -> tuple[str, ...]:
    return tuple(patch for patch in (trajectory.submission, task.gold_patch) if patch.strip())


def _without(lines: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """A line that goes and comes again, e.g. with the file's last line end, tells nothing."""
    forms = set(map(_form, others))
    return tuple(line for line in lines if _form(line) not in forms)


def _seen(lines: tuple[str, ...], shown: frozenset[str]) -> tuple[str, ...]:
    return tuple(line for line in lines if _form(line) in shown)


def _telling(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Distinctive lines; when there are none, all that are not blank."""
    return tuple(filter(is_distinctive, lines)) or tuple(filter(str.strip, lines))
