"""Images that are built without a registry."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from pathlib import Path

import pytest

from contextrl.envs import base_image, images
from contextrl.envs import builder as builder_module
from contextrl.envs.base_image import ensure_base
from contextrl.envs.builder import EngineImages, builder, image_exists
from contextrl.envs.cleanup import (
    LABEL_DRAFT,
    LABEL_PID,
    LABEL_RUN,
    draft_label,
    owner_label,
    reap_drafts,
)
from contextrl.envs.errors import ImageError
from contextrl.envs.grading import DockerGrader
from contextrl.envs.images import build_repo_image, ensure_image
from contextrl.envs.recipe import Recipe, export_commit, find_recipe, find_repository, tree_id
from contextrl.envs.root_images import RootImages
from contextrl.envs.tree_digest import file_lines, tree_digest
from contextrl.envs.types import Reward, Verdict
from contextrl.envs.validate import find_problem, validate_task

PYTEST = ("pytest==8.3.4",)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def clone(tmp_path_factory, tiny_files) -> tuple[Path, str]:
    """`repos/example__tiny`, whose second commit is the future, and the id of its first."""
    repos = tmp_path_factory.mktemp("repos")
    folder = repos / "example__tiny"
    for name, content in tiny_files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / ".gitattributes").write_text("tests export-ignore\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    base = git(folder, "rev-parse", "HEAD")
    (folder / "future.py").write_text("secret = 1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "future")
    return repos, base


@pytest.mark.docker
def test_building_twice_is_one_build(docker_client, tiny_image, tiny_files, tmp_path, monkeypatch):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(EngineImages, "building", never)
    monkeypatch.setattr(images, "wheelhouse", never)
    for name, content in tiny_files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    again = build_repo_image(
        EngineImages(docker_client), name="contextrl-test-tiny", tree=tmp_path, requirements=PYTEST
    )
    assert again == tiny_image
    assert ensure_base(EngineImages(docker_client)).startswith("contextrl-base:")
    (tmp_path / "tiny.py").write_text("changed = 1\n")
    with pytest.raises(AssertionError, match="built again"):
        build_repo_image(
            EngineImages(docker_client),
            name="contextrl-test-tiny",
            tree=tmp_path,
            requirements=PYTEST,
        )


@pytest.mark.docker
def test_the_package_imports_from_anywhere_and_git_trusts_its_index(
    docker_provider, tiny_task, tiny_image
):
    task = tiny_task.model_copy(update={"image": tiny_image, "setup_patch": ""})
    with docker_provider.start(task) as sandbox:
        where = sandbox.exec(
            "(cd / && python -c 'import tiny; print(tiny.__file__)')", timeout_s=20
        )
        assert where.output == "/testbed/tiny.py\n"
        assert sandbox.exec("git status --porcelain", timeout_s=20).output == ""
        assert sandbox.exec("git config core.checkStat", timeout_s=20).exit_code == 1


def drafts_and_containers_of_this_process(client):
    """What a build of ours would leave; other processes may be building beside this one."""
    drafts = {"dangling": True, "label": [f"{LABEL_DRAFT}={draft_label()}"]}
    building = {"label": [f"{LABEL_RUN}=image-build", f"{LABEL_PID}={owner_label(os.getpid())}"]}
    return [
        *client.api.images(filters=drafts),
        *client.api.containers(all=True, filters=building),
    ]


@pytest.mark.docker
def test_a_failed_build_leaves_no_image_and_no_container(docker_client, base_image, tmp_path):
    (tmp_path / "x.py").write_text("x = 1\n")
    with pytest.raises(ImageError, match="a build step failed with 3: no luck"):
        build_repo_image(
            EngineImages(docker_client),
            name="contextrl-test-fail",
            tree=tmp_path,
            requirements=PYTEST,
            install=["echo no luck; exit 3"],
        )
    assert not docker_client.api.images(name="contextrl-test-fail")
    assert not drafts_and_containers_of_this_process(docker_client)


@pytest.mark.docker
def test_requirements_without_pytest_are_refused(docker_client, base_image, tmp_path):
    with pytest.raises(ImageError, match="expected pytest among the requirements"):
        build_repo_image(
            EngineImages(docker_client),
            name="contextrl-test-x",
            tree=tmp_path,
            requirements=["iniconfig"],
        )


@pytest.mark.docker
def test_an_image_is_built_from_a_clone_at_the_base_commit(
    docker_client, docker_provider, tiny_image, tiny_task, clone, monkeypatch
):
    repos, base = clone
    recipe = Recipe(repo="example/tiny", requirements=PYTEST)
    monkeypatch.setattr(images, "find_recipe", lambda repo: recipe)
    task = tiny_task.model_copy(update={"base_commit": base, "image": "example/none:1"})
    image = ensure_image(docker_client, task, repos=repos)
    try:
        assert ensure_image(docker_client, task, repos=repos) == image
        local = task.model_copy(update={"image": image})
        with docker_provider.start(local) as sandbox:
            listed = sandbox.exec("ls -A; ls tests", timeout_s=20).output
            assert "test_tiny.py" in listed
            assert "future.py" not in listed
        validation = validate_task(
            task, DockerGrader(docker_provider), client=docker_client, repos=repos
        )
        assert validation.ok, validation.problem
        assert validation.image == image
    finally:
        docker_client.api.remove_image(image, force=True)


@pytest.mark.docker
def test_no_image_says_why_and_what_to_do(docker_client, tiny_task, clone):
    repos, _ = clone
    task = tiny_task.model_copy(update={"image": "localhost:1/none:1"})
    with pytest.raises(ImageError, match="no recipe for example/tiny") as caught:
        ensure_image(docker_client, task, repos=repos)
    assert "docker pull localhost:1/none:1" in str(caught.value)
    assert "\n" not in str(caught.value)
    moto = task.model_copy(update={"repo": "getmoto/moto"})
    with pytest.raises(ImageError, match=f"{repos} holds no getmoto/moto"):
        ensure_image(docker_client, moto, repos=repos)
    assert not image_exists(docker_client, "localhost:1/none:1")


@pytest.mark.docker
def test_a_task_that_fails_validation_says_why(
    docker_client, docker_provider, tiny_task, tiny_image
):
    task = tiny_task.model_copy(update={"image": tiny_image, "gold_patch": tiny_task.setup_patch})
    grader = DockerGrader(docker_provider)
    validation = validate_task(task, grader, client=docker_client)
    assert not validation.ok
    assert "expected the gold patch to resolve the task, found patch-rejected" in validation.problem


def test_what_makes_a_task_invalid():
    good, bad = Reward(verdict=Verdict.RESOLVED), Reward(verdict=Verdict.UNRESOLVED)
    assert find_problem(good, bad) == (None, "")
    assert "gold patch" in find_problem(bad, bad)[1]
    assert "empty patch" in find_problem(good, good)[1]


def test_without_mmdebstrap_the_base_image_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(base_image.shutil, "which", lambda _: None)
    with pytest.raises(ImageError, match="apt-get install mmdebstrap"):
        ensure_base(RootImages(tmp_path))


def test_shipped_recipes_can_be_read():
    recipe = find_recipe("getmoto/moto")
    assert recipe is not None
    assert any(requirement.startswith("pytest==") for requirement in recipe.requirements)
    assert find_recipe("nobody/nothing") is None


@pytest.mark.parametrize("place", ["o__n/.git", "o__n.git", "o+n/repo", "o/n/.git", "n/.git"])
def test_clones_and_mirrors_are_found_where_people_keep_them(tmp_path, place):
    git_dir = tmp_path / place
    (git_dir / "objects").mkdir(parents=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    assert find_repository(tmp_path, "o/n") == git_dir
    assert find_repository(tmp_path, "o/other") is None


def test_all_files_of_a_commit_are_exported(clone, tmp_path):
    repos, base = clone
    git_dir = find_repository(repos, "example/tiny")
    assert git_dir is not None
    export_commit(git_dir, base, tmp_path)
    assert (tmp_path / "tests" / "test_tiny.py").is_file()
    assert not (tmp_path / "future.py").exists()
    assert git(repos / "example__tiny", "status", "--porcelain") == ""
    assert tree_id(git_dir, base) is not None
    assert tree_id(git_dir, "f" * 40) is None
    assert tree_id(git_dir, "--help") is None


@pytest.mark.docker
@pytest.mark.slow
def test_two_builds_of_the_same_input_have_the_same_files(
    docker_client, base_image, tmp_path, monkeypatch
):
    (tmp_path / "a.py").write_text("x = 1\n")
    names = []
    for version in (9001, 9002):  # other tags, so that the second is built as well
        monkeypatch.setattr(images, "REPOSITORY_VERSION", version)
        monkeypatch.setattr(images, "DEPENDENCIES_VERSION", version)
        name = build_repo_image(
            EngineImages(docker_client),
            name="contextrl-test-same",
            tree=tmp_path,
            requirements=PYTEST,
        )
        recipe = Recipe(repo="", requirements=PYTEST)
        names += [name, images._dependencies_image(base_image, recipe)]
        config = docker_client.api.inspect_image(name)["Config"]
        assert config["Entrypoint"] is None
        assert config["Cmd"] == ["bash"]
    lines = sorted(file_lines(docker_client, names[0]))
    assert any("/a.py'" in line for line in lines), "the repository is part of it"
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == tree_digest(docker_client, names[2])
    for name in reversed(names):
        docker_client.api.remove_image(name)


@pytest.mark.docker
def test_the_draft_of_a_build_that_was_killed_is_removed(docker_client, base_image, monkeypatch):
    def label() -> str:
        return f"{socket.gethostname()}/999999999:1"

    with builder(docker_client, base_image) as build:
        build.run("echo living > /living")
        living = build.commit("", user="root", workdir="/")
        monkeypatch.setattr(builder_module, "draft_label", label)
        build.run("echo dead > /dead")
        dead = build.commit("", user="root", workdir="/")
    try:
        assert dead in reap_drafts(docker_client)
        assert not image_exists(docker_client, dead)
        assert image_exists(docker_client, living)
    finally:
        docker_client.api.remove_image(living)
