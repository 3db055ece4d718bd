"""The folder of a build from bugs: outcomes as they come, so that a killed build goes on."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from contextrl.envs.bug_rows import BugRow, UnusableRow, read_bugs
from contextrl.envs.bug_tasks import BugBench, BugOutcome, BugStage, build_bug_tasks, stages
from contextrl.envs.errors import MutationError
from contextrl.envs.task_splits import StageCount, in_turns
from contextrl.envs.tasks import write_tasks
from contextrl.envs.types import Record, Task

SCHEMA_VERSION = 1
OUTCOMES, TASKS, QUARANTINE, MANIFEST = (
    "outcomes.jsonl",
    "tasks.jsonl",
    "quarantine.jsonl",
    "manifest.json",
)


class BugManifest(Record):
    """Written last."""

    schema_version: int = SCHEMA_VERSION
    source: str
    """SHA-256 of the file of bugs."""
    seed: int
    rows: int
    tried: int
    """Rows that this build was asked to try; the others were over its limit."""
    stages: tuple[StageCount, ...]
    tasks: dict[str, int]
    """By repository."""


def build_bug_folder(
    bugs_file: Path,
    out: Path,
    bench: BugBench,
    *,
    seed: int,
    limit: int | None,
    workers: int,
    resume: bool,
    overwrite: bool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BugManifest:
    """`out` holds tasks.jsonl, quarantine.jsonl with reasons, and the manifest.

    Raises:
        TaskRowError: the file of bugs cannot be read.
        MutationError: `out` has a build already, or one of another file.
        SandboxError: the engine failed; go on with `resume`.
    """
    rows, unusable = read_bugs(bugs_file)
    digest = hashlib.sha256(bugs_file.read_bytes()).hexdigest()
    done = _prepare(out, digest, resume=resume, overwrite=overwrite)
    chosen = mixed(rows, seed=seed)[:limit]
    waiting = [bug for bug in chosen if bug.instance_id not in done]
    with (out / OUTCOMES).open("a", encoding="utf-8") as stream:

        def record(outcome: BugOutcome) -> None:
            done[outcome.instance_id] = outcome
            stream.write(outcome.model_dump_json() + "\n")
            stream.flush()
            on_progress(len(done), len(chosen))

        if waiting:
            on_progress(len(done), len(chosen))
            build_bug_tasks(bench, waiting, workers=workers, on_outcome=record)
    wanted = {bug.instance_id for bug in chosen}
    outcomes = [done[name] for name in sorted(done) if name in wanted]
    outcomes += [_unusable(row) for row in unusable]
    tasks = [outcome.task for outcome in outcomes if outcome.task is not None]
    manifest = BugManifest(
        source=digest,
        seed=seed,
        rows=len(rows) + len(unusable),
        tried=len(outcomes),
        stages=tuple(stages(outcomes)),
        tasks=_by_repository(tasks),
    )
    write_tasks(out / TASKS, tasks)
    lines = [each.model_dump_json() + "\n" for each in outcomes if each.task is None]
    (out / QUARANTINE).write_text("".join(lines), encoding="utf-8")
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def mixed(bugs: Sequence[BugRow], *, seed: int) -> list[BugRow]:
    """Repositories in turn, so that every prefix has bugs of each."""
    by_repository: defaultdict[str, list[BugRow]] = defaultdict(list)
    for bug in sorted(bugs, key=lambda each: each.instance_id):
        by_repository[bug.repo].append(bug)
    for name, each in by_repository.items():
        random.Random(f"{seed}:{name}").shuffle(each)
    return in_turns(by_repository[name] for name in sorted(by_repository))


def _prepare(out: Path, digest: str, *, resume: bool, overwrite: bool) -> dict[str, BugOutcome]:
    """Outcomes that are known already; the folder and a note of what it is built from exist."""
    note = out / "source.json"
    if note.exists() and not (resume or overwrite):
        raise MutationError(
            f"expected no build in {out}, found one; pass --resume to go on with it, --overwrite, "
            "or another --out"
        )
    out.mkdir(parents=True, exist_ok=True)
    if overwrite:
        for name in (OUTCOMES, TASKS, QUARANTINE, MANIFEST):
            (out / name).unlink(missing_ok=True)
    elif note.exists() and json.loads(note.read_text(encoding="utf-8"))["source"] != digest:
        raise MutationError(f"{out} was built from another file of bugs; pass another --out")
    note.write_text(json.dumps({"source": digest}) + "\n", encoding="utf-8")
    path = out / OUTCOMES
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            outcome = BugOutcome.model_validate_json(line)
        except ValidationError:  # the line that was being written when the build was killed
            continue
        found[outcome.instance_id] = outcome
    return found


def _unusable(row: UnusableRow) -> BugOutcome:
    return BugOutcome(instance_id=row.instance_id, lost=BugStage.READ, detail=row.reason)


def _by_repository(tasks: Iterable[Task]) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for task in tasks:
        found[task.repo] += 1
    return dict(sorted(found.items()))
