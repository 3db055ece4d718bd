"""A small real package -> validated tasks, by injecting one bug at a time (SWE-smith style).

A bug becomes a task only if, in a networkless container, it breaks a test that the intact package
passes, leaves another one passing, and does both again in a second process with another hash seed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contextrl.envs.builder import EngineImages
from contextrl.envs.errors import MutationError
from contextrl.envs.image_place import ImagePlace
from contextrl.envs.images import build_repo_image, repo_image_name
from contextrl.envs.issue_text import issue_text
from contextrl.envs.leases import leased_folder
from contextrl.envs.mutants import Mutant, bug_patch, fix_patch, functions_of
from contextrl.envs.mutation_runner import StartDriver, docker_driver
from contextrl.envs.mutation_scope import Baseline
from contextrl.envs.mutation_stages import (
    WORKDIR,
    Bug,
    Progress,
    Workbench,
    confirm,
    find_bugs,
    measure_baseline,
    propose_mutants,
)
from contextrl.envs.package_specs import PackageSpec
from contextrl.envs.packages import fetch_sdist, prepare_tree, tree_digest
from contextrl.envs.root_driver import root_driver
from contextrl.envs.root_images import RootImages
from contextrl.envs.task_splits import (
    BuildManifest,
    Division,
    SplitSizes,
    TaskSplits,
    divide,
    in_turns,
    load_splits,
    save_splits,
)
from contextrl.envs.types import Task, TaskSource

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

MAX_WORKERS = 8
EXTRA_SPARE = 1.05
"""Extra mutants that are run for each one that is wanted: some break no test."""


def find_package_tasks(
    spec: PackageSpec, *, out: Path, sizes: SplitSizes | None = None, seed: int = 0
) -> TaskSplits | None:
    """What `build_package_tasks` made earlier of the same input, with no need of an engine."""
    sizes = sizes or SplitSizes()
    with leased_folder("contextrl-build-") as scratch:
        tree = prepare_tree(spec, fetch_sdist(spec, out / "sdists"), scratch)
        base_commit = tree_digest(tree)
        image = repo_image_name(
            name=f"contextrl-{spec.name}", tree=tree, requirements=spec.requirements
        )
    return load_splits(out / f"{spec.name}-{build_key(spec, image, base_commit, sizes, seed)}")


@dataclass(frozen=True, slots=True)
class PackagePlace:
    """Where a package's image is made and its tests run."""

    images: ImagePlace
    start_driver: StartDriver

    @classmethod
    def of_engine(cls, client: DockerClient) -> PackagePlace:
        return cls(EngineImages(client), docker_driver(client))

    @classmethod
    def of_roots(cls, roots: Path) -> PackagePlace:
        """Needs root, mmdebstrap and bubblewrap, and no engine."""
        return cls(RootImages(roots), root_driver(roots))


def build_package_tasks(
    place: PackagePlace,
    spec: PackageSpec,
    *,
    out: Path,
    sizes: SplitSizes | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> TaskSplits:
    """Tasks in a folder of `out` named by all they depend on; those already there if complete.

    The same arguments give the same bytes. The image is made in any case: tasks need it to run.

    Raises:
        MutationError: no such sdist, not what `spec` says it is, or no bug makes a task.
        SandboxError: the place failed.
    """
    sizes = sizes or SplitSizes()
    with leased_folder("contextrl-build-") as scratch:
        tree = prepare_tree(spec, fetch_sdist(spec, out / "sdists"), scratch)
        sources = {file: (tree / file).read_text(encoding="utf-8") for file in spec.sources}
        base_commit = tree_digest(tree)
        image = build_repo_image(
            place.images,
            name=f"contextrl-{spec.name}",
            tree=tree,
            requirements=spec.requirements,
        )
    key = build_key(spec, image, base_commit, sizes, seed)
    folder = out / f"{spec.name}-{key}"
    if not overwrite and (complete := load_splits(folder)) is not None:
        return complete

    bench = Workbench(
        start_driver=place.start_driver,
        spec=spec,
        image=image,
        sources=sources,
        workers=min(os.cpu_count() or 1, MAX_WORKERS),
        progress=progress,
    )
    bugs = choose_bugs(bench, sizes, seed=seed)
    tasks = {
        split: [make_task(bench, bug, base_commit) for bug in each] for split, each in bugs.items()
    }
    manifest = BuildManifest(
        key=key,
        package=spec,
        sizes=sizes,
        seed=seed,
        image=image,
        base_commit=base_commit,
        stages=tuple(bench.stages),
        tasks={split: len(each) for split, each in tasks.items()},
        functions={
            split: tuple(sorted({bug.mutant.function for bug in each}))
            for split, each in bugs.items()
        },
    )
    _check_sizes(manifest)
    save_splits(folder, manifest, tasks)
    if (complete := load_splits(folder)) is None:
        raise MutationError(f"{folder}: expected the build just written, found something else")
    return complete


def choose_bugs(bench: Workbench, sizes: SplitSizes, *, seed: int) -> dict[str, list[Bug]]:
    """Bugs by split: from every edit down to those that two runs of the tests agree on."""
    functions = functions_of(bench.sources, max_lines=bench.spec.max_function_lines)
    base = measure_baseline(bench, functions)
    mutants = propose_mutants(bench, functions, base, seed=seed)
    sampled = in_turns([each[: bench.spec.max_mutants_per_function] for each in mutants.values()])
    left = sum(map(len, mutants.values())) - len(sampled)
    bench.count("sampled", len(sampled), {"over-limit": left})

    by_function: dict[str, list[Bug]] = defaultdict(list)
    for bug in find_bugs(bench, "bugs", sampled, base):
        by_function[bug.mutant.function].append(bug)
    division = divide(by_function, sizes, seed=seed)
    chosen = {
        "train": division.train,
        "heldout_functions": division.heldout_functions,
        "heldout_mutants": division.heldout_mutants,
    }
    every = [bug for each in chosen.values() for bug in each]
    bench.count("split", len(every), {"surplus": len(division.surplus)})
    confirmed = confirm(bench, every, base)
    bugs = {
        split: [bug for bug in each if bug.mutant.key in confirmed]
        for split, each in chosen.items()
    }
    return {**bugs, "extra": find_extra(bench, mutants, base, division, limit=sizes.extra)}


def find_extra(
    bench: Workbench,
    mutants: Mapping[str, Sequence[Mutant]],
    base: Baseline,
    division: Division[Bug],
    *,
    limit: int,
) -> list[Bug]:
    """Up to `limit` more bugs of the training functions, run once; first what no split took."""
    trained = {bug.mutant.function for bug in division.train}
    extra = [bug for bug in division.surplus if bug.mutant.function in trained][:limit]
    per_function = bench.spec.max_mutants_per_function
    untried = in_turns([mutants[name][per_function:] for name in sorted(trained)])
    wanted = untried[: int((limit - len(extra)) * EXTRA_SPARE)]
    if wanted:
        extra += find_bugs(bench, "extra", wanted, base)
    return extra[:limit]


def make_task(bench: Workbench, bug: Bug, base_commit: str) -> Task:
    """The bug as the policy meets it: set by `setup_patch`, undone by `gold_patch`."""
    mutant, spec = bug.mutant, bench.spec
    text = bench.sources[mutant.file]
    return Task(
        task_id=f"{spec.name}__{mutant.function}__{mutant.operator}-{mutant.key}",
        source=TaskSource.MUTATION,
        repo=spec.repo,
        base_commit=base_commit,
        problem=issue_text(mutant, bug.failing[0], bug.crash),
        image=bench.image,
        workdir=WORKDIR,
        setup_patch=bug_patch(mutant, text),
        gold_patch=fix_patch(mutant, text),
        fail_to_pass=bug.failing,
        pass_to_pass=bug.passing,
        test_timeout_s=spec.test_timeout_s,
    )


def build_key(spec: PackageSpec, image: str, base_commit: str, sizes: SplitSizes, seed: int) -> str:
    """Changes with the package, the parameters and the code that turns them into tasks."""
    digest = hashlib.sha256()
    for part in (spec.model_dump(mode="json"), image, base_commit, sizes.model_dump(), seed):
        digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    for module in sorted(_RECIPE):
        digest.update((Path(__file__).parent / module).read_bytes())
    return digest.hexdigest()[:12]


_RECIPE = (
    "issue_text.py",
    "mutants.py",
    "mutate.py",
    "mutation_driver.py",
    "mutation_runner.py",
    "mutation_scope.py",
    "mutation_stages.py",
    "operators.py",
    "packages.py",
    "source_prep.py",
    "task_splits.py",
)


def _check_sizes(manifest: BuildManifest) -> None:
    for split, wanted in manifest.sizes.model_dump().items():
        found = manifest.tasks[split]
        if found == 0 and split != "extra":
            raise MutationError(f"{manifest.package.name}: no task for {split} of {wanted} wanted")
        if found < wanted:
            logger.warning("%s: %d tasks of %d wanted", split, found, wanted)
