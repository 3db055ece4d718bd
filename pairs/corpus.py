"""A corpus of any size -> drawn couples of runs, with a count after every stage.

Same repository and commit -> same file -> same function -> different bug -> related issues ->
drawn under the caps. Works on the index (index.py) inside one SQLite file and holds one
repository's lines in memory at a time; texts are read later, for what was drawn (twins.py).
Counts of couples are of ordered pairs of runs: each order asks about another patch.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from contextrl.pairs.caps import Candidate, Caps, Function, within
from contextrl.pairs.diffs import patch_lines
from contextrl.pairs.index import CorpusStage, IndexedPart, IndexedRun
from contextrl.pairs.normal import normal
from contextrl.pairs.related import RelatedBounds, Relation, relation
from contextrl.pairs.stages import StageCount, sharing

ANY_COMMIT = "*"
_SCHEMA = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY, repo TEXT, commit_id TEXT, trajectory_id TEXT,
    digest TEXT UNIQUE, part TEXT, number INTEGER, line TEXT
);
CREATE TABLE drawn (
    place INTEGER, repo TEXT, commit_id TEXT, file TEXT, function TEXT,
    positive INTEGER, negative INTEGER
);
CREATE TABLE text (id INTEGER PRIMARY KEY, line TEXT);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the index and its number in the data base."""

    id: int
    run: IndexedRun

    @property
    def trajectory_id(self) -> str:
        return self.run.trajectory_id

    @property
    def task_id(self) -> str:
        return self.run.task_id


@dataclass(frozen=True, slots=True)
class Drawn:
    """A couple to be checked, by numbers of `Entry`."""

    positive: int
    negative: int
    function: Function


@dataclass(slots=True)
class _Counts:
    runs: int = 0
    commit: int = 0
    file: int = 0
    function: int = 0
    different: int = 0
    related: int = 0
    drawn: int = 0


def load(database: Path, parts: Sequence[IndexedPart]) -> list[StageCount]:
    """A fresh data base of every indexed run, each content once; the stages of rows.

    Of equal runs the one with the smallest id stays, whatever the order of the parts.
    """
    database.unlink(missing_ok=True)
    lost = sum((part.lost for part in parts), Counter[str]())
    count = sum(part.report.rows for part in parts)
    stages = []
    for stage in CorpusStage:
        kept = count - lost[stage]
        stages.append(StageCount(name=stage, unit="runs", seen=count, kept=kept))
        count = kept
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("PRAGMA synchronous=OFF")  # a scratch file: it is made again from the index
        db.executescript(_SCHEMA)
        db.executemany(
            "INSERT INTO run VALUES (NULL, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET "
            "repo = excluded.repo, commit_id = excluded.commit_id, "
            "trajectory_id = excluded.trajectory_id, part = excluded.part, "
            "number = excluded.number, line = excluded.line "
            "WHERE excluded.trajectory_id < trajectory_id",
            (row for part in parts for row in _rows(part)),
        )
        db.execute("CREATE INDEX by_commit ON run (repo, commit_id, trajectory_id)")
        distinct = db.execute("SELECT count(*) FROM run").fetchone()[0]
    stages.append(
        StageCount(name="no other run is the same", unit="runs", seen=count, kept=distinct)
    )
    return stages


def draw(
    database: Path,
    caps: Caps | None,
    bounds: RelatedBounds | None,
    *,
    seed: int,
    any_commit: bool = False,
) -> list[StageCount]:
    """Fills the table `drawn`, best turn first, and counts. `caps.limit` is the number drawn.

    Without `caps` every couple is drawn, without `bounds` issues are not compared.
    """
    counts = _Counts()
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("DELETE FROM drawn")
        commit = "''" if any_commit else "commit_id"
        keys = db.execute(f"SELECT DISTINCT repo, {commit} FROM run ORDER BY 1, 2").fetchall()
        for repo, commit_id in keys:
            entries = _group(db, repo, None if any_commit else commit_id)
            chosen = _within_repository(entries, caps, bounds, seed, any_commit, counts)
            db.executemany(
                "INSERT INTO drawn VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((n, *c.function, c.positive.id, c.negative.id) for n, c in enumerate(chosen)),
            )
        drawn = db.execute("SELECT count(*) FROM drawn").fetchone()[0]
        if caps is not None and caps.limit is not None and drawn > caps.limit:
            db.execute(
                "DELETE FROM drawn WHERE rowid NOT IN "
                "(SELECT rowid FROM drawn ORDER BY place, rowid LIMIT ?)",
                (caps.limit,),
            )
            drawn = caps.limit
    counts.drawn = drawn
    everything = counts.runs * (counts.runs - 1)
    names = (
        ("same repository" if any_commit else "same repository and commit", counts.commit),
        ("same file", counts.file),
        ("same function", counts.function),
        ("different bug", counts.different),
        ("related issues", counts.related),
        ("drawn under the caps", counts.drawn),
    )
    stages, seen = [], everything
    for name, kept in names:
        stages.append(StageCount(name=name, unit="pairs", seen=seen, kept=kept))
        seen = kept
    return stages


def drawn_by_function(database: Path) -> Iterator[list[Drawn]]:
    """What was drawn, one function at a time."""
    group: list[Drawn] = []
    with closing(sqlite3.connect(database)) as db:
        query = (
            "SELECT repo, commit_id, file, function, positive, negative FROM drawn ORDER BY 1,2,3,4"
        )
        for *function, positive, negative in db.execute(query):
            key = (function[0], function[1], function[2], function[3])
            if group and group[0].function != key:
                yield group
                group = []
            group.append(Drawn(positive, negative, key))
    if group:
        yield group


def _within_repository(
    entries: Sequence[Entry],
    caps: Caps | None,
    bounds: RelatedBounds | None,
    seed: int,
    any_commit: bool,
    counts: _Counts,
) -> list[Candidate[Entry]]:
    counts.runs += len(entries)
    functions = {each.id: _functions(each.run, any_commit) for each in entries}
    counts.commit += len(entries) * (len(entries) - 1)
    counts.file += sharing([frozenset(f[:3] for f in functions[e.id]) for e in entries])
    counts.function += sharing([functions[each.id] for each in entries])
    groups: defaultdict[Function, list[Entry]] = defaultdict(list)
    for each in entries:
        for function in functions[each.id]:
            groups[function].append(each)
    relations: dict[tuple[str, str], Relation] = {}
    candidates: list[Candidate[Entry]] = []
    for function, group in sorted(groups.items(), key=lambda item: item[0]):
        for first, second in permutations(group, 2):
            if min(functions[first.id] & functions[second.id]) != function:
                continue  # counted under the first function they share
            if first.task_id == second.task_id:
                continue
            low, high = sorted((first, second), key=lambda each: each.task_id)
            tasks = (low.task_id, high.task_id)
            if tasks not in relations:
                relations[tasks] = _relation(low.run, high.run, bounds)
            if relations[tasks] is Relation.SAME_BUG:
                continue
            counts.different += 1
            if relations[tasks] is Relation.RELATED:
                counts.related += 1
                candidates.append(Candidate(first, second, function))
    if caps is None:
        return candidates
    return within(caps, candidates, seed, key=lambda each: each.positive.trajectory_id)


def _relation(first: IndexedRun, second: IndexedRun, bounds: RelatedBounds | None) -> Relation:
    if bounds is not None:
        issues = (first.problem, second.problem)
        return relation(issues, (frozenset(first.change), frozenset(second.change)), bounds)
    return Relation.SAME_BUG if _change(first) == _change(second) else Relation.RELATED


def _change(run: IndexedRun) -> tuple[tuple[str, ...], ...]:
    """What its fix does, in order: two bugs may change the same lines the other way round."""
    lines = patch_lines(run.fix)
    return tuple(map(normal, lines.removed)), tuple(map(normal, lines.added))


def _functions(run: IndexedRun, any_commit: bool) -> frozenset[Function]:
    commit = ANY_COMMIT if any_commit else run.commit
    return frozenset((run.repo, commit, each.file, each.function) for each in run.regions)


def _group(db: sqlite3.Connection, repo: str, commit: str | None) -> list[Entry]:
    found = db.execute(
        "SELECT id, line FROM run WHERE repo = ? AND (? IS NULL OR commit_id = ?) "
        "ORDER BY trajectory_id",
        (repo, commit, commit),
    )
    return [Entry(number, IndexedRun.model_validate_json(line)) for number, line in found]


def _rows(part: IndexedPart) -> Iterable[tuple[str, str, str, str, str, int, str]]:
    with part.lines.open(encoding="utf-8") as stream:
        for line in stream:
            run = IndexedRun.model_validate_json(line)
            yield (
                run.repo,
                run.commit,
                run.trajectory_id,
                run.digest,
                run.part,
                run.number,
                line,
            )
