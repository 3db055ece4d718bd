"""Images for tasks: a local one, a registry's, or one built here without a registry.

A build is layered base <- dependencies <- repository, each tagged by a digest of everything that
goes in, and only when it is whole: a tag that exists is right, and an interrupted build leaves
none. There is no Dockerfile: building containers run like sandboxes, without a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contextrl.envs.base_image import AGENT_UID, base_image, ensure_base
from contextrl.envs.builder import FIXED_TIME, VENV, EngineImages, content_tag, image_exists
from contextrl.envs.errors import ImageError, SandboxError
from contextrl.envs.image_place import ImagePlace
from contextrl.envs.image_store import ImageStore
from contextrl.envs.leases import leased_folder
from contextrl.envs.one_maker import one_maker
from contextrl.envs.pulling import pull
from contextrl.envs.recipe import Recipe, export_commit, find_recipe, find_repository, tree_id
from contextrl.envs.repository import JUNK
from contextrl.envs.types import Task
from contextrl.envs.wheels import DEFAULT_CACHE, wheelhouse

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

DEPENDENCIES_VERSION = REPOSITORY_VERSION = 3
"""Part of each digest: raise one when the steps that make that layer change."""
DEPENDENCIES_NAME = "contextrl-deps"


def build_repo_image(
    place: ImagePlace,
    *,
    name: str,
    tree: Path,
    requirements: Sequence[str],
    install: Sequence[str] = (),
    paths: Sequence[str] = (".", "src"),
    cache: Path = DEFAULT_CACHE,
) -> str:
    """An image with `tree` as a one-commit repository in /testbed and its requirements in a venv.

    `requirements` must bring pytest. `install` are commands run as root in /testbed after that,
    without a network. Without any, those of `paths` that exist are put on Python's path. The agent
    owns /testbed and cannot write the venv. Building twice from the same input is one look-up.
    """
    recipe = Recipe(
        repo=name, requirements=tuple(requirements), install=tuple(install), paths=tuple(paths)
    )
    return _build_repository(
        place,
        name=name,
        tree=tree,
        tree_digest=_digest_of_tree(tree),
        recipe=recipe,
        cache=cache,
    )


def repo_image_name(*, name: str, tree: Path, requirements: Sequence[str]) -> str:
    """What `build_repo_image` calls the image, whether it exists or not. Asks no engine."""
    recipe = Recipe(repo=name, requirements=tuple(requirements))
    return _repository_image(name, _digest_of_tree(tree), recipe)


def ensure_image(
    client: DockerClient,
    task: Task,
    *,
    repos: Path | None = None,
    cache: Path = DEFAULT_CACHE,
    store: ImageStore | None = None,
) -> str:
    """The name of a local image that holds the task: `task.image`, or one built from `repos`.

    Tried in order: the local image, a build from a recipe and the repository under `repos` at the
    base commit, a registry. Raises `ImageError` that says why each was no help. `store` learns what
    was brought here and what serves, and may remove others for it.
    """
    image, is_new = _find_or_bring(client, task, repos, cache)
    if store is not None:
        (store.added if is_new else store.used)(image)
    return image


def _find_or_bring(
    client: DockerClient, task: Task, repos: Path | None, cache: Path
) -> tuple[str, bool]:
    """The image's name, and whether it was not here before."""
    if image_exists(client, task.image):
        return task.image, False
    recipe = find_recipe(task.repo)
    git_dir = find_repository(repos, task.repo, task.base_commit) if repos is not None else None
    reasons = []
    if recipe is None:
        reasons.append(f"no recipe for {task.repo} in envs/recipes")
    elif git_dir is None:
        place = "no --repos was given" if repos is None else f"{repos} holds no {task.repo}"
        reasons.append(f"cannot be built, as {place}")
    elif (digest := tree_id(git_dir, task.base_commit)) is None:
        reasons.append(f"cannot be built, as {git_dir} lacks commit {task.base_commit}")
    else:
        return _build_from_commit(client, task, recipe, git_dir, digest, cache)
    try:
        return pull(client, task.image), True
    except ImageError as error:
        raise ImageError(
            f"image {task.image} not found locally and {'; '.join([*reasons, str(error)])}; give "
            f"--repos DIR with a clone of {task.repo}, or run where the registry can be reached: "
            f"docker pull {task.image}"
        ) from error


def _build_from_commit(
    client: DockerClient, task: Task, recipe: Recipe, git_dir: Path, digest: str, cache: Path
) -> tuple[str, bool]:
    name = "contextrl-" + task.repo.replace("/", "__").lower()
    with leased_folder("contextrl-tree-") as tree:
        image = _repository_image(name, digest, recipe)
        if image_exists(client, image):
            return image, False
        export_commit(git_dir, task.base_commit, tree)
        built = _build_repository(
            EngineImages(client),
            name=name,
            tree=tree,
            tree_digest=digest,
            recipe=recipe,
            cache=cache,
        )
        return built, True


def _build_repository(
    place: ImagePlace, *, name: str, tree: Path, tree_digest: str, recipe: Recipe, cache: Path
) -> str:
    image = _repository_image(name, tree_digest, recipe)
    if place.has(image):
        return image
    dependencies = _ensure_dependencies(place, recipe, cache)
    with one_maker(image):
        if not place.has(image):
            _make_repository(place, image, dependencies, tree, recipe)
    return image


def _make_repository(
    place: ImagePlace, image: str, dependencies: str, tree: Path, recipe: Recipe
) -> None:
    logger.info("building %s", image)
    with place.building(dependencies) as build:
        build.put_tree(tree, "/testbed", uid=AGENT_UID)
        install = list(recipe.install) or [_path_file(recipe.paths)]
        build.run("cd /testbed\n" + "\n".join(install))
        # Inode numbers differ in every container: with full checks git would read every file again.
        build.run(
            f"""
            cd /testbed
            export GIT_AUTHOR_DATE=@{FIXED_TIME} GIT_COMMITTER_DATE=@{FIXED_TIME}
            git init -q -b main
            git config gc.auto 0
            printf '%s\\n' {" ".join(f"'{pattern}'" for pattern in JUNK)} > .git/info/exclude
            git add -A
            git -c user.name=contextrl -c user.email=contextrl@localhost \\
                commit -q -m 'Initial commit'
            rm -rf .git/hooks .git/logs
            """,
            user="agent",
        )
        draft = build.commit("", user="agent", workdir="/testbed")
    try:
        # Committing gave the files other inodes. Without this the first git command in every
        # container would read them all again; the index's own check must stay as strict as it is,
        # or git overlooks an edit that keeps size and second.
        with place.building(draft) as build:
            build.run("cd /testbed && git update-index -q --refresh", user="agent")
            build.commit(image, user="agent", workdir="/testbed")
    except BaseException:
        with contextlib.suppress(SandboxError):
            place.remove(draft)
        raise


def _ensure_dependencies(place: ImagePlace, recipe: Recipe, cache: Path) -> str:
    base = ensure_base(place)
    requirements = recipe.requirements
    image = _dependencies_image(base, recipe)
    if place.has(image):
        return image
    if not any(_project_name(requirement) == "pytest" for requirement in requirements):
        raise ImageError(f"expected pytest among the requirements, found {list(requirements)}")
    with one_maker(image):
        if not place.has(image):
            _make_dependencies(place, image, base, recipe, cache)
    return image


def _make_dependencies(
    place: ImagePlace, image: str, base: str, recipe: Recipe, cache: Path
) -> None:
    requirements = recipe.requirements
    wheels = wheelhouse(requirements, uploaded_before=recipe.uploaded_before, cache=cache)
    logger.info("building %s from %d wheels", image, len(list(wheels.iterdir())))
    with place.building(base) as build:
        build.put_tree(wheels, "/tmp/wheels", uid=0)
        listed = " ".join(f"'{requirement}'" for requirement in requirements)
        # Compiled last, from sources of one date: caches hold the time of what they were made of.
        build.run(
            f"python3 -m venv {VENV}\n"
            f"{VENV}/bin/pip install --quiet --no-index --no-compile --find-links /tmp/wheels "
            f"{listed}\n"
            "rm -rf /tmp/wheels ~/.cache\n"
            f"find {VENV} -name '*.pyc' -delete\n"
            f"find {VENV} -exec touch -h -d @{FIXED_TIME} {{}} +\n"
            f"{VENV}/bin/python -m compileall -q {VENV} || :\n"
            f"find {VENV} -exec touch -h -d @{FIXED_TIME} {{}} +"
        )
        build.commit(image, user="root", workdir="/")


def _repository_image(name: str, tree_digest: str, recipe: Recipe) -> str:
    base = base_image()
    dependencies = _dependencies_image(base, recipe)
    return content_tag(
        name,
        REPOSITORY_VERSION,
        ["repository", dependencies, tree_digest, recipe.install, recipe.paths],
    )


def _dependencies_image(base: str, recipe: Recipe) -> str:
    content = ["dependencies", base, sorted(recipe.requirements), recipe.uploaded_before]
    return content_tag(DEPENDENCIES_NAME, DEPENDENCIES_VERSION, content)


def _path_file(paths: Sequence[str]) -> str:
    """A command that puts the existing `paths` of /testbed on the venv's path."""
    return (
        f"for path in {' '.join(paths)}; do\n"
        '  [ ! -d "/testbed/$path" ] || realpath "/testbed/$path"\n'
        f"done > $(echo {VENV}/lib/python3*/site-packages)/testbed.pth"
    )


def _project_name(requirement: str) -> str:
    name = requirement
    for end in "[=<>!~ ;@":
        name = name.split(end, 1)[0]
    return name.strip().lower()


def _digest_of_tree(tree: Path) -> str:
    if not tree.is_dir():
        raise ImageError(f"expected a folder with the repository's files, found none at {tree}")
    digest = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            content, kind = os.readlink(path).encode(), "link"
        elif stat.S_ISREG(mode):
            content, kind = path.read_bytes(), "x" if mode & 0o100 else "-"
        else:
            continue
        name = path.relative_to(tree).as_posix()
        digest.update(f"{kind} {name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
