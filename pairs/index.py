"""Pass one over a corpus: each row to a line of a few kilobytes, or to the stage where it was lost.

Parts (files) are independent, so they are indexed by worker processes; each part's lines are a file
of their own that appears whole or not at all, which is what makes a killed pass resumable. Memory
is bounded by one row per worker.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from contextrl.agents.formats.types import ForeignRun
from contextrl.envs.types import Record
from contextrl.pairs.answer import mentions, source_part
from contextrl.pairs.decontaminate import Benchmark
from contextrl.pairs.diffs import (
    FunctionSource,
    Region,
    patch_lines,
    touched_files,
    touched_regions,
)
from contextrl.pairs.errors import PatchError
from contextrl.pairs.evidence import AnswerFrom, ReadTaskSource
from contextrl.pairs.normal import normal
from contextrl.pairs.sources import Account, SourceReport, instance_of, read_part
from contextrl.pairs.types import Instance

VERSION = 2


class CorpusStage(StrEnum):
    """What a row must be, in the order it is asked."""

    READ = "its row can be read"
    COUNTS = "infrastructure held"
    COMMIT_KNOWN = "repository and commit are known"
    FIX_KNOWN = "a fix is known"
    PATCH_READABLE = "its patch can be read"
    OWN_REPOSITORY = "the patch is of its own repository"
    CLEAN = "not of a benchmark"
    IN_FUNCTION = "its fix is in a function"


class IndexedRun(Record):
    """What the cascade needs of a run; its text stays where it is."""

    part: str
    number: int
    trajectory_id: str
    task_id: str
    repo: str
    commit: str
    problem: str
    answer: str
    """The source part of the run's own patch if it resolved its task, else of the reference."""
    answer_from: AnswerFrom
    fix: str
    """The reference fix, source part; the answer itself when there is no other."""
    regions: tuple[Region, ...]
    change: tuple[str, ...]
    """Changed lines of `fix` in normal form, sorted, each once."""
    digest: str
    """Equal for two runs that said and saw the same on the same task."""


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """How rows are judged. Travels to the worker processes."""

    instances: Mapping[str, Instance] = field(default_factory=dict)
    """By task id; joined before anything a row says."""
    known_only: bool = False
    """What a row says of its task does not count: only runs of `instances` are kept."""
    benchmark: Benchmark | None = None
    """None keeps benchmark rows: for looking at them, never for training."""
    read_source: ReadTaskSource | None = None


@dataclass(frozen=True, slots=True)
class IndexedPart:
    """One part's outcome."""

    part: str
    lines: Path
    lost: Counter[str]
    report: SourceReport


OnProgress = Callable[[int, int, int], None]
"""(parts done, parts in all, rows so far)."""


def index_parts(
    parts: Sequence[str],
    folder: Path,
    options: IndexOptions,
    *,
    workers: int = 2,
    on_progress: OnProgress = lambda done, total, rows: None,
) -> list[IndexedPart]:
    """Every part's lines are in `folder`; parts that are there from before are not read again."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, IndexedPart] = {}
    todo = []
    for part in parts:
        known = _finished(part, folder)
        if known is not None:
            found[part] = known
        else:
            todo.append(part)
    rows = sum(each.report.rows for each in found.values())
    on_progress(len(found), len(parts), rows)
    if workers <= 1 or len(todo) <= 1:
        for part in todo:
            found[part] = index_part(part, folder, options)
            rows += found[part].report.rows
            on_progress(len(found), len(parts), rows)
    else:
        # Once per worker and not once per part: a set's instances are hundreds of megabytes.
        with ProcessPoolExecutor(workers, initializer=_receive, initargs=(options,)) as pool:
            futures = [pool.submit(_index_received, part, folder) for part in todo]
            for future in as_completed(futures):
                done = future.result()
                found[done.part] = done
                rows += done.report.rows
                on_progress(len(found), len(parts), rows)
    return [found[part] for part in parts]


_received: list[IndexOptions] = []


def _receive(options: IndexOptions) -> None:
    _received[:] = [options]


def _index_received(part: str, folder: Path) -> IndexedPart:
    return index_part(part, folder, _received[0])


def index_part(part: str, folder: Path, options: IndexOptions) -> IndexedPart:
    """Writes the part's lines, then a second file with the counts, which says that it is whole."""
    lines, counts = _paths(part, folder)
    account = Account()
    lost: Counter[str] = Counter()
    partial = lines.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as stream:
        for number, run in read_part(part, account):
            entry = indexed(run, part, number, options)
            if isinstance(entry, CorpusStage):
                lost[entry] += 1
            else:
                stream.write(json.dumps(entry.model_dump(mode="json")) + "\n")
    os.replace(partial, lines)
    report = account.report()
    lost[CorpusStage.READ] = report.rows - report.read
    body = {"part": part, "lost": lost, "report": report.model_dump(mode="json")}
    temporary = counts.with_suffix(".tmp")
    temporary.write_text(json.dumps(body), encoding="utf-8")
    os.replace(temporary, counts)
    return IndexedPart(part, lines, lost, report)


def indexed(
    run: ForeignRun, part: str, number: int, options: IndexOptions
) -> IndexedRun | CorpusStage:
    """The run's line, or the stage at which it is left out."""
    episode = run.trajectory
    if episode.excluded:
        return CorpusStage.COUNTS
    instance = instance_of(run, options.instances)
    joined = instance.task_id in options.instances
    if not ((joined or not options.known_only) and instance.repo and instance.base_commit):
        return CorpusStage.COMMIT_KNOWN
    resolved = episode.reward is not None and episode.reward.resolved
    own = episode.submission if resolved else ""
    if not (own.strip() or instance.gold_patch.strip()):
        return CorpusStage.FIX_KNOWN
    try:
        fix = source_part(instance.gold_patch or own)
        answer = source_part(own) if own.strip() else fix
        if not (fix and answer):
            return CorpusStage.PATCH_READABLE
        files = touched_files(answer)
    except PatchError:
        return CorpusStage.PATCH_READABLE
    observed = [m for m in episode.messages[1:] if m.role != "system"]
    if not (joined and set(files) & set(touched_files(fix))) and not mentions(files, observed):
        return CorpusStage.OWN_REPOSITORY
    if options.benchmark is not None and options.benchmark.found_in(instance) is not None:
        return CorpusStage.CLEAN
    read_source = options.read_source
    regions = touched_regions(
        fix,
        (lambda path: read_source(instance, path)) if read_source is not None else None,
        [m.content for m in observed if m.role == "user"],
    )
    named = tuple(region for region in regions if _points_at_one(region))
    if not named:
        return CorpusStage.IN_FUNCTION
    lines = patch_lines(fix)
    said = "\1".join([episode.task_id, *(message.content for message in episode.messages)])
    return IndexedRun(
        part=part,
        number=number,
        trajectory_id=episode.trajectory_id,
        task_id=episode.task_id,
        repo=instance.repo,
        commit=instance.base_commit,
        problem=instance.problem,
        answer=answer,
        answer_from="submission" if own.strip() else "gold",
        fix=fix,
        regions=named,
        change=tuple(sorted({normal(line) for line in (*lines.removed, *lines.added)} - {""})),
        digest=hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:32],
    )


def _points_at_one(region: Region) -> bool:
    """A hunk header names a method without its class: `__eq__` alone may be any class's."""
    name = region.function
    return bool(name) and (
        region.source is FunctionSource.SYNTAX_TREE
        or not (name.startswith("__") and name.endswith("__"))
    )


def _finished(part: str, folder: Path) -> IndexedPart | None:
    lines, counts = _paths(part, folder)
    if not (counts.exists() and lines.exists()):
        return None
    body = json.loads(counts.read_text(encoding="utf-8"))
    report = SourceReport.model_validate(body["report"])
    return IndexedPart(part, lines, Counter(body["lost"]), report)


def _paths(part: str, folder: Path) -> tuple[Path, Path]:
    """Named by what the part is now: a file that changed is indexed again."""
    path = Path(part)
    state = path.stat() if path.is_file() else None
    stamp = (state.st_size, state.st_mtime_ns) if state else ()
    digest = hashlib.sha256(repr((VERSION, part, stamp)).encode()).hexdigest()[:20]
    return folder / f"{digest}.jsonl", folder / f"{digest}.json"
