"""Mutation tasks divided so that learning, memory and generalisation can be told apart.

`train` is for reinforcement learning, `heldout_mutants` are other bugs of the same functions, and
`heldout_functions` are bugs of functions that no other split touches. `extra` are more bugs of the
training functions, seen to break a test once, for warm-up examples. No bug is in two of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import Field, ValidationError

from contextrl.envs.errors import MutationError
from contextrl.envs.package_specs import PackageSpec
from contextrl.envs.types import Record, Task

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
SPLIT_FILES = {
    "train": "train.jsonl",
    "heldout_functions": "heldout_functions.jsonl",
    "heldout_mutants": "heldout_mutants.jsonl",
    "extra": "mutants_extra.jsonl",
}
HELDOUT_EVERY = 4
"""The fourth, eighth, ... bug of a training function is held out."""

T = TypeVar("T")


class SplitSizes(Record):
    """Upper bounds; a package may have fewer bugs that its tests see."""

    train: int = Field(default=240, ge=1)
    heldout_functions: int = Field(default=60, ge=1)
    heldout_mutants: int = Field(default=50, ge=1)
    extra: int = Field(default=600, ge=0)


class StageCount(Record):
    """One filter of the build. `seen` is `kept` and all of `dropped` together."""

    stage: str
    seen: int
    kept: int
    dropped: dict[str, int] = Field(default_factory=dict)


class BuildManifest(Record):
    """Written last: a folder without it, or with other files than it names, is not complete."""

    schema_version: int = SCHEMA_VERSION
    key: str
    package: PackageSpec
    sizes: SplitSizes
    seed: int
    image: str
    base_commit: str
    stages: tuple[StageCount, ...]
    tasks: dict[str, int]
    functions: dict[str, tuple[str, ...]]
    """For each split, the functions its bugs are in."""
    sha256: dict[str, str] = Field(default_factory=dict)
    """Of each file; filled in when they are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSplits:
    folder: Path
    manifest: BuildManifest
    train: tuple[Task, ...]
    heldout_functions: tuple[Task, ...]
    heldout_mutants: tuple[Task, ...]
    extra: tuple[Task, ...]

    def path(self, split: str) -> Path:
        return self.folder / SPLIT_FILES[split]


@dataclass(frozen=True, slots=True)
class Division(Generic[T]):
    """Items by split, and those that no split had room for."""

    train: tuple[T, ...]
    heldout_functions: tuple[T, ...]
    heldout_mutants: tuple[T, ...]
    surplus: tuple[T, ...]


def divide(by_function: Mapping[str, Sequence[T]], sizes: SplitSizes, *, seed: int) -> Division[T]:
    """Whole functions are held out first; then the others give one bug each in turn.

    The order of a split is that of the turns, so its first N items touch about N functions.
    """
    functions = sorted(name for name, items in by_function.items() if items)
    random.Random(f"{seed}:functions").shuffle(functions)
    unseen: list[str] = []
    while functions and sum(len(by_function[name]) for name in unseen) < sizes.heldout_functions:
        unseen.append(functions.pop())
    heldout_functions = in_turns([by_function[name] for name in unseen])
    train: list[T] = []
    heldout_mutants: list[T] = []
    surplus = heldout_functions[sizes.heldout_functions :]
    for turn, item in _turns([by_function[name] for name in functions]):
        held_out = (turn + 1) % HELDOUT_EVERY == 0
        if held_out and len(heldout_mutants) < sizes.heldout_mutants:
            heldout_mutants.append(item)
        elif len(train) < sizes.train:
            train.append(item)
        else:
            surplus.append(item)
    return Division(
        tuple(train),
        tuple(heldout_functions[: sizes.heldout_functions]),
        tuple(heldout_mutants),
        tuple(surplus),
    )


def in_turns(queues: Iterable[Sequence[T]]) -> list[T]:
    """First the first of each queue, then the second of each, and so on."""
    return [item for _, item in _turns(queues)]


def _turns(queues: Iterable[Sequence[T]]) -> Iterator[tuple[int, T]]:
    waiting = list(queues)
    for turn in range(max(map(len, waiting), default=0)):
        for queue in waiting:
            if turn < len(queue):
                yield turn, queue[turn]


def save_splits(folder: Path, manifest: BuildManifest, tasks: Mapping[str, Sequence[Task]]) -> None:
    """`folder` appears complete or not at all; an earlier one is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        hashes = {}
        for split, name in SPLIT_FILES.items():
            content = "".join(f"{task.model_dump_json()}\n" for task in tasks[split]).encode()
            (partial / name).write_bytes(content)
            hashes[name] = hashlib.sha256(content).hexdigest()
        finished = manifest.model_copy(update={"sha256": hashes})
        text = json.dumps(finished.model_dump(mode="json"), indent=2) + "\n"
        (partial / MANIFEST).write_text(text, encoding="utf-8")
        partial.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_splits(folder: Path) -> TaskSplits | None:
    """What `save_splits` wrote, or None, with a warning if there is something else in `folder`."""
    try:
        manifest = BuildManifest.model_validate_json((folder / MANIFEST).read_bytes())
        tasks = {}
        for split, name in SPLIT_FILES.items():
            content = (folder / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != manifest.sha256.get(name):
                raise MutationError(f"{folder / name}: its hash is not the one in {MANIFEST}")
            tasks[split] = tuple(map(Task.model_validate_json, content.splitlines()))
    except (OSError, ValidationError, MutationError) as error:
        if folder.exists():
            logger.warning("%s is not a complete build and will be replaced: %s", folder, error)
        return None
    return TaskSplits(folder=folder, manifest=manifest, **tasks)
