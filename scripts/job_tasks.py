"""Stage `tasks`: from a package or files to the splits that the job trains and validates on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contextrl.envs.engine import connect
from contextrl.envs.errors import EngineUnavailableError, SandboxError
from contextrl.envs.mutate import PackagePlace, build_package_tasks, find_package_tasks
from contextrl.envs.package_specs import PackageSpec, package_spec
from contextrl.envs.task_splits import SplitSizes, TaskSplits
from contextrl.envs.tasks import read_tasks, write_tasks
from contextrl.envs.types import Task
from contextrl.envs.unpacked import DEFAULT_ROOTS
from contextrl.pairs.hub import fetched, hub_table, on_hub
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings import TaskConfig

TRAIN = "train"

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTasks:
    train: Path
    validate: Mapping[str, Path]
    """Split name to file."""
    config: TaskConfig
    splits: TaskSplits | None = None
    """The package build they come from, if any."""

    def training(self) -> list[Task]:
        """What RL trains on."""
        return list(read_tasks(self.train))[: self.config.train_limit]

    def validation(self) -> dict[str, list[Task]]:
        """The first tasks of each split; their order spreads them over functions.

        Raises `ConfigError` if a limit names no split.
        """
        config = self.config
        unknown = set(config.validate_limits) - set(self.validate)
        if unknown and self.splits is not None:  # a preset's limits are for its package's splits
            raise ConfigError(
                f"expected splits of {sorted(self.validate)} in job.tasks.validate_limits, "
                f"found {sorted(unknown)}"
            )
        found = {
            split: list(read_tasks(file))[
                : config.validate_limits.get(split, config.validate_limit)
            ]
            for split, file in self.validate.items()
        }
        if self.config.validate_train:
            found = {TRAIN: self.training()} | found
        return found

    def candidates(self) -> list[Task]:
        """Those that RL's are chosen from."""
        assert self.splits is not None, "only a package build has tasks to spare"
        return list(self.splits.train[: self._kept_back])

    def demonstrated(self) -> list[Task]:
        """Training tasks that RL leaves out: their solutions may be shown and mined."""
        assert self.splits is not None, "only a package build has tasks to spare"
        return [] if self._kept_back is None else list(self.splits.train[self._kept_back :])

    @property
    def _kept_back(self) -> int | None:
        return self.config.candidates or self.config.train_limit


def prepare_tasks(
    config: TaskConfig, cache_dir: Path, progress: Progress, roots: Path = DEFAULT_ROOTS
) -> JobTasks:
    """`roots`: of unpacked images, where no engine answers.

    Raises `MutationError`, `TaskRowError`, `SandboxError`, `SourceError` or `ConfigError`."""
    if config.package is not None:
        splits = _of_package(config, config.package, cache_dir / "tasks", progress, roots)
        names = ("heldout_functions", "heldout_mutants")
        return JobTasks(
            train=splits.path("train"),
            validate={name: splits.path(name) for name in names},
            config=config,
            splits=splits,
        )
    if config.train is None:
        raise ConfigError("expected job.tasks.package or job.tasks.train, found neither; set one")
    folder = cache_dir / "tasks"
    train = local_file(config.train, folder)
    if config.validate:
        return JobTasks(
            train=train,
            validate={name: local_file(f, folder) for name, f in config.validate.items()},
            config=config,
        )
    return _hold_out(read_tasks(train), config, folder)


def _of_package(
    config: TaskConfig, package: str, out: Path, progress: Progress, roots: Path
) -> TaskSplits:
    """Built with an engine, or without one in namespaces."""
    spec = package_spec(package)
    sizes = SplitSizes(
        train=config.n_train,
        heldout_functions=config.n_heldout_functions,
        heldout_mutants=config.n_heldout_mutants,
        extra=config.n_extra,
    )
    build = partial(
        build_package_tasks, spec=spec, out=out, sizes=sizes, seed=config.seed, progress=progress
    )
    try:
        return build(PackagePlace.of_engine(connect()))
    except EngineUnavailableError as error:
        return _without_engine(error, build, package, out, spec, sizes, config.seed, roots)


def _without_engine(
    no_engine: EngineUnavailableError,
    build: Callable[[PackagePlace], TaskSplits],
    package: str,
    out: Path,
    spec: PackageSpec,
    sizes: SplitSizes,
    seed: int,
    roots: Path,
) -> TaskSplits:
    """Made in namespaces where we may, else those that were made before and copied here."""
    try:
        return build(PackagePlace.of_roots(roots.expanduser()))
    except SandboxError as error:
        splits = find_package_tasks(spec, out=out, sizes=sizes, seed=seed)
        if splits is None:
            raise EngineUnavailableError(
                f"{no_engine}. Without one: {error}; or run this stage where an engine is, and "
                f"copy the tasks of {package} below {out} and `contextrl tasks unpack`'s roots here"
            ) from error
        return splits


def local_file(name: str, folder: Path) -> Path:
    """`name` on this disk. A data set of the hub becomes a file in `folder`, one for each content.

    Raises `ConfigError` if nothing is there, `SourceError` for the hub.
    """
    name = fetched(name)
    if on_hub(name):
        return _written(name, folder)
    path = Path(name)
    if not path.exists():
        raise ConfigError(f"expected a file {path}, found none")
    return path


def _written(name: str, folder: Path) -> Path:
    table = hub_table(name)
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{os.getpid()}.parquet"
    table.to_parquet(draft)
    path = folder / f"hub-{hashlib.sha256(draft.read_bytes()).hexdigest()[:12]}.parquet"
    draft.replace(path)
    return path


def _hold_out(tasks: Sequence[Task], config: TaskConfig, folder: Path) -> JobTasks:
    """A share of the tasks, chosen by their ids alone, is kept for validation."""
    ranked = sorted(tasks, key=lambda task: hashlib.sha256(task.task_id.encode()).digest())
    n_held_out = min(config.validate_limit or 64, len(ranked) // 4)
    held_out, train = ranked[:n_held_out], ranked[n_held_out:]
    if not held_out or not train:
        raise ConfigError(f"expected at least 8 tasks in {config.train}, found {len(tasks)}")
    key = hashlib.sha256("".join(task.task_id for task in ranked).encode()).hexdigest()[:12]
    folder = folder / f"split-{key}-{n_held_out}"
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train": folder / "train.jsonl", "heldout_tasks": folder / "heldout_tasks.jsonl"}
    write_tasks(files["train"], train)
    write_tasks(files["heldout_tasks"], held_out)
    return JobTasks(
        train=files["train"], validate={"heldout_tasks": files["heldout_tasks"]}, config=config
    )
