"""Pass two: the texts of what was drawn -> masked, checked pairs.

Only drawn runs are read again, in one pass over their parts, into the data base. Then each function
is checked by itself: both runs saw their bug -> no added line can be read -> the evidence is on one
side only. That is all a worker holds in memory.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from contextrl.agents.types import Trajectory
from contextrl.envs.types import Task
from contextrl.pairs.answer import source_part
from contextrl.pairs.corpus import Drawn, drawn_by_function
from contextrl.pairs.errors import PatchError
from contextrl.pairs.evidence import PairStage, Run, gather, pair_of, rejection
from contextrl.pairs.index import IndexedRun
from contextrl.pairs.related import similarity
from contextrl.pairs.sources import Account, read_part
from contextrl.pairs.types import Instance, TrajectoryPair

_WORD = re.compile(r"\w")
CHECKED = tuple(PairStage)
_BLOCK = 4
"""Functions handed to a worker at once."""
_AHEAD = 2
"""Blocks a worker that are handed out before the first of them is taken back."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One function's couples."""

    pairs: tuple[TrajectoryPair, ...]
    lost: Counter[PairStage]


def read_texts(database: Path, *, on_progress: Callable[[int, int], None]) -> int:
    """Every drawn run's text is in the data base; returns how many there are."""
    with closing(sqlite3.connect(database)) as db:
        wanted: defaultdict[str, dict[int, int]] = defaultdict(dict)
        query = (
            "SELECT id, part, number FROM run WHERE id IN "
            "(SELECT positive FROM drawn UNION SELECT negative FROM drawn) "
            "AND id NOT IN (SELECT id FROM text)"
        )
        for number, part, at in db.execute(query):
            wanted[part][at] = number
        for done, (part, ids) in enumerate(sorted(wanted.items()), start=1):
            with db:
                for at, run in read_part(part, Account(), ids.keys()):
                    line = run.trajectory.model_copy(update={"steps": ()}).model_dump_json()
                    db.execute("INSERT OR IGNORE INTO text VALUES (?, ?)", (ids[at], line))
            on_progress(done, len(wanted))
        return int(db.execute("SELECT count(*) FROM text").fetchone()[0])


def check(
    database: Path, miner: str, *, workers: int, on_progress: Callable[[int], None]
) -> Iterator[Checked]:
    """Every drawn function's outcome, in order. `on_progress` gets the functions done."""
    work = partial(_check_functions, database, miner)
    blocks = _blocks(drawn_by_function(database))
    done = 0
    if workers <= 1:
        for block in blocks:
            yield from work(block)
            done += len(block)
            on_progress(done)
        return
    with ProcessPoolExecutor(workers) as pool:
        for outcome in _in_order(pool, work, blocks, _AHEAD * workers):
            yield from outcome
            done += len(outcome)
            on_progress(done)


def _in_order(
    pool: Executor,
    work: Callable[[list[list[Drawn]]], list[Checked]],
    blocks: Iterator[list[list[Drawn]]],
    most: int,
) -> Iterator[list[Checked]]:
    """`pool.map`, but at most `most` outcomes exist at a time: they hold whole texts."""
    waiting: deque[Future[list[Checked]]] = deque()
    for block in blocks:
        if len(waiting) == most:
            yield waiting.popleft().result()
        waiting.append(pool.submit(work, block))
    while waiting:
        yield waiting.popleft().result()


def _blocks(groups: Iterator[list[Drawn]]) -> Iterator[list[list[Drawn]]]:
    block: list[list[Drawn]] = []
    for group in groups:
        block.append(group)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


def _check_functions(
    database: Path, miner: str, groups: Sequence[Sequence[Drawn]]
) -> list[Checked]:
    with closing(sqlite3.connect(database)) as db:
        return [_check_function(db, miner, group) for group in groups]


def _check_function(db: sqlite3.Connection, miner: str, group: Sequence[Drawn]) -> Checked:
    numbers = {n for each in group for n in (each.positive, each.negative)}
    runs = {number: _run(db, number) for number in numbers}
    evidence = cache(gather)
    pairs: list[TrajectoryPair] = []
    lost: Counter[PairStage] = Counter()
    for each in group:
        positive, negative = runs[each.positive], runs[each.negative]
        try:
            stage = rejection(evidence(positive), evidence(negative))
        except PatchError:
            stage = PairStage.NO_LEAK  # too many lines to prove anything about
        if stage is not None:
            lost[stage] += 1
            continue
        _, _, file, function = each.function
        own = (positive.task.repo, positive.task.base_commit, file, function)
        pair = pair_of(evidence(positive), evidence(negative), own, miner)
        if not any(map(_WORD.search, pair.positive.decisive)):
            lost[PairStage.NOT_AMBIGUOUS] += 1  # a lone bracket decides nothing
            continue
        pairs.append(_with_relation(pair, positive.task, negative.task))
    return Checked(tuple(pairs), lost)


def _with_relation(
    pair: TrajectoryPair, positive: Task | Instance, negative: Task | Instance
) -> TrajectoryPair:
    other = negative.base_commit if negative.base_commit != positive.base_commit else ""
    changes: Mapping[str, object] = {
        "issue_similarity": round(similarity(positive.problem, negative.problem), 4),
        "other_commit": other,
    }
    return pair.model_copy(update={"provenance": pair.provenance.model_copy(update=changes)})


def _run(db: sqlite3.Connection, number: int) -> Run:
    (line,) = db.execute("SELECT line FROM run WHERE id = ?", (number,)).fetchone()
    (text,) = db.execute("SELECT line FROM text WHERE id = ?", (number,)).fetchone()
    entry = IndexedRun.model_validate_json(line)
    trajectory = Trajectory.model_validate_json(text)
    instance = Instance(
        task_id=entry.task_id,
        repo=entry.repo,
        base_commit=entry.commit,
        problem=entry.problem,
        gold_patch=entry.fix,
    )
    return Run(
        trajectory=trajectory.model_copy(update={"submission": _own(trajectory.submission)}),
        task=instance,
        regions=entry.regions,
        answer=entry.answer,
        answer_from=entry.answer_from,
    )


def _own(submission: str) -> str:
    """Only this part of a run's diff is masked: its reproduction script is evidence."""
    try:
        return source_part(submission) if submission.strip() else ""
    except PatchError:
        return ""
