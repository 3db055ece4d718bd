"""The whole build of a toy package in real containers: an endless bug and a flaky test included."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from itertools import pairwise

import pytest

from contextrl.envs.cleanup import LABEL_RUN
from contextrl.envs.grading import DockerGrader
from contextrl.envs.mutate import PackagePlace, build_package_tasks, find_package_tasks
from contextrl.envs.namespace import NamespaceProvider
from contextrl.envs.package_specs import TOOLZ, PackageSpec
from contextrl.envs.task_splits import SplitSizes
from contextrl.envs.types import Outcome
from contextrl.envs.unpacked import unpack

pytestmark = pytest.mark.docker

CORE = '''
def total(n):
    """Sum of 1 to n."""
    # adds downwards
    result = 0

    while n > 0:
        result += n
        n -= 1
    return result


def span(low, high):
    return max(low, high) - min(low, high)


def never_tested(x):
    return x + 1
'''
TESTS = """
import os

from toy.core import span, total


def test_total():
    assert total(3) == 6


def test_total_of_nothing():
    assert total(0) == 0


def test_span():
    assert span(1, 3) == 2


def test_span_backwards():
    assert span(3, 1) == 2


def test_flaky():
    assert os.environ["PYTHONHASHSEED"] == "1"
"""
SIZES = SplitSizes(train=6, heldout_functions=4, heldout_mutants=2, extra=4)


def toy_sdist(folder) -> PackageSpec:
    folder.mkdir(parents=True)
    path = folder / "toy-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {"toy/core.py": CORE, "tests/test_core.py": TESTS}.items():
            member = tarfile.TarInfo(f"toy-1.0/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return PackageSpec(
        name="toy",
        version="1.0",
        sdist_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        sdist_filename=path.name,
        repo="someone/toy",
        sources=("toy/core.py",),
        tests="tests",
        keep=("toy", "tests"),
        requirements=TOOLZ.requirements,
        max_mutants_per_function=10,
        mutant_cpu_s=1,
    )


@pytest.fixture(scope="module")
def built(docker_client, tmp_path_factory):
    out = tmp_path_factory.mktemp("tasks")
    spec = toy_sdist(out / "sdists")
    splits = build_package_tasks(PackagePlace.of_engine(docker_client), spec, out=out, sizes=SIZES)
    yield out, spec, splits
    docker_client.images.remove(splits.manifest.image)


def test_every_filter_accounts_for_what_it_saw(built):
    stages = {each.stage: each for each in built[2].manifest.stages}
    for stage in stages.values():
        assert stage.seen == stage.kept + sum(stage.dropped.values())
    chain = ["edits", "covered", "sampled", "bugs", "split", "confirm"]
    for before, after in pairwise(chain):
        assert stages[after].seen == stages[before].kept
    chosen = sum(built[2].manifest.tasks[name] for name in ("train", "heldout_functions"))
    assert stages["confirm"].kept == chosen + built[2].manifest.tasks["heldout_mutants"]


def test_a_machine_without_an_engine_finds_what_was_built(built, tmp_path):
    out, spec, splits = built
    assert find_package_tasks(spec, out=out, sizes=SIZES) == splits
    assert find_package_tasks(spec, out=out, sizes=SIZES, seed=1) is None


def test_a_flaky_test_decides_nothing(built):
    stages = {each.stage: each for each in built[2].manifest.stages}
    assert stages["tests"].dropped == {"failed-or-flaky": 1}
    for task in (*built[2].train, *built[2].heldout_functions):
        assert not any("test_flaky" in test for test in task.fail_to_pass + task.pass_to_pass)


def test_a_bug_that_never_ends_is_dropped(built):
    stages = {each.stage: each for each in built[2].manifest.stages}
    assert stages["bugs"].dropped["resource-limit"] >= 1
    assert not any("+        n += 1" in task.setup_patch for task in built[2].train)


def test_a_function_without_a_test_gets_no_task(built):
    assert "never_tested" not in sum(built[2].manifest.functions.values(), ())


def test_each_task_can_fail_and_can_pass(built):
    for task in (*built[2].train, *built[2].heldout_functions, *built[2].heldout_mutants):
        assert task.fail_to_pass
        assert task.pass_to_pass
        assert task.problem.split()[2] == "toy/core.py"


def test_splits_share_no_bug_and_the_held_out_function_is_in_one(built):
    splits = built[2]
    parts = [splits.train, splits.heldout_functions, splits.heldout_mutants, splits.extra]
    every = [task.setup_patch for part in parts for task in part]
    assert len(set(every)) == len(every)
    functions = splits.manifest.functions
    assert not set(functions["heldout_functions"]) & {*functions["train"], *functions["extra"]}


def test_a_finished_build_is_not_run_again_and_a_repeated_one_has_the_same_bytes(
    built, docker_client
):
    out, spec, first = built
    runs = []
    build = {"out": out, "sizes": SIZES, "progress": lambda *run: runs.append(run)}
    again = build_package_tasks(PackagePlace.of_engine(docker_client), spec, **build)
    assert not runs
    assert again == first
    repeated = build_package_tasks(
        PackagePlace.of_engine(docker_client), spec, overwrite=True, **build
    )
    assert runs
    assert repeated == first


def test_no_container_is_left(built, docker_client):
    ours = {"label": f"{LABEL_RUN}=tasks-build", "ancestor": built[2].manifest.image}
    assert docker_client.containers.list(all=True, filters=ours) == []


def test_the_fix_resolves_a_task_and_nothing_does_not(built, docker_provider):
    grader = DockerGrader(docker_provider)
    for task in (*built[2].train[:2], *built[2].heldout_functions[:1]):
        assert grader.grade(task, task.gold_patch).resolved
        untouched = grader.grade(task, "")
        assert not untouched.resolved
        assert {untouched.tests[test] for test in task.fail_to_pass} == {Outcome.FAILED}
        assert {untouched.tests[test] for test in task.pass_to_pass} == {Outcome.PASSED}


@pytest.mark.slow
def test_without_an_engine_the_same_tasks_come_out_and_can_be_graded(
    built, docker_client, base_image, bubblewrap, tmp_path_factory
):
    """The engine only lends the base, which takes a minute to make of Debian's packages."""
    downloads, spec, with_engine = built
    out = tmp_path_factory.mktemp("tasks")
    shutil.copytree(downloads / "sdists", out / "sdists")
    roots = tmp_path_factory.mktemp("roots")
    unpack(docker_client, base_image, roots)
    splits = build_package_tasks(PackagePlace.of_roots(roots), spec, out=out, sizes=SIZES)
    assert splits.manifest == with_engine.manifest
    assert (splits.train, splits.extra) == (with_engine.train, with_engine.extra)
    task = splits.train[0]
    with NamespaceProvider(roots) as provider:
        grader = DockerGrader(provider)
        assert grader.grade(task, task.gold_patch).resolved
        assert not grader.grade(task, "").resolved
        with provider.start(task) as sandbox:
            assert sandbox.exec("id -un; git status --short", timeout_s=20).output == "agent\n"
            assert sandbox.exec("touch /opt/venv/x", timeout_s=20).exit_code != 0
    assert not list(roots.glob(".unpacking-*"))
    programs = [path for path in roots.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in programs if path.stat().st_mode & 0o6000], "a way to become root"
