"""Images for tasks: a local one, a registry's, or one built here without a registry.

A build is layered base <- dependencies <- repository, each tagged by a digest of everything that
goes in, and only when it is whole: a tag that exists is right, and an interrupted build leaves
none. There is no Dockerfile: building containers run like sandboxes, without a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contextrl.envs.cleanup import LABEL_DEADLINE, LABEL_HOST, LABEL_PID, LABEL_RUN, owner_label
from contextrl.envs.engine import ExecChannel, engine_boundary
from contextrl.envs.errors import ImageError, SandboxError
from contextrl.envs.recipe import Recipe, export_commit, find_recipe, find_repository, tree_id
from contextrl.envs.repository import JUNK
from contextrl.envs.types import Task
from contextrl.envs.wheels import DEFAULT_CACHE, wheelhouse

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

BUILDER_VERSION = 1
"""Part of every digest: raise it when the steps below change."""

SUITE = "bookworm"
BASE_PACKAGES = ("python3", "python3-venv", "git", "patch", "procps", "less", "ca-certificates")
BASE_NAME = "contextrl-base"
DEPENDENCIES_NAME = "contextrl-deps"
AGENT_UID = 1000
FIXED_TIME = 946684800
"""2000-01-01: files of an image do not depend on when it was built."""

VENV = "/opt/venv"
PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILD_TIMEOUT_S = 1200.0


def ensure_base(client: DockerClient) -> str:
    """A minimal Debian with Python, git and a user `agent` (uid 1000) exists; its name."""
    image = _tagged(BASE_NAME, ["base", SUITE, BASE_PACKAGES])
    if image_exists(client, image):
        return image
    if shutil.which("mmdebstrap") is None:
        raise ImageError(
            "expected mmdebstrap to make the base image, found none; run: apt-get install mmdebstrap"
        )
    if os.geteuid() != 0:
        raise ImageError("making the base image needs root; run the same command as root once")
    logger.info("making the base image %s (about a minute)", image)
    repository, tag = image.split(":")
    with tempfile.TemporaryDirectory(prefix="contextrl-base-") as scratch:
        archive = Path(scratch, "base.tar")
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(BASE_PACKAGES)}",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            f'--customize-hook=chroot "$1" useradd -m -u {AGENT_UID} -s /bin/bash agent',
            SUITE,
            str(archive),
            *_host_sources(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = " ".join(done.stderr.split())[-300:]
            raise ImageError(f"mmdebstrap failed, check the network and apt's sources: {reason}")
        with engine_boundary("importing the base image"):
            # By name: given a stream, the SDK sends a header that the engine refuses.
            client.api.import_image_from_file(
                str(archive),
                repository=repository,
                tag=tag,
                changes=["ENV LANG=C.UTF-8", 'CMD ["bash"]'],
            )
    _check_exists(client, image)
    return image


def build_repo_image(
    client: DockerClient,
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
    return _build_repository(
        client,
        name=name,
        tree=tree,
        tree_digest=_digest_of_tree(tree),
        recipe=Recipe(
            repo=name, requirements=tuple(requirements), install=tuple(install), paths=tuple(paths)
        ),
        cache=cache,
    )


def ensure_image(
    client: DockerClient, task: Task, *, repos: Path | None = None, cache: Path = DEFAULT_CACHE
) -> str:
    """The name of a local image that holds the task: `task.image`, or one built from `repos`.

    Tried in order: the local image, a registry, a build from a recipe and the repository under
    `repos` at the base commit. Raises `ImageError` that says why each was no help.
    """
    if image_exists(client, task.image):
        return task.image
    recipe = find_recipe(task.repo)
    git_dir = find_repository(repos, task.repo) if repos is not None else None
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
        return pull(client, task.image)
    except ImageError as error:
        raise ImageError(
            f"image {task.image} not found locally and {'; '.join([*reasons, str(error)])}; give "
            f"--repos DIR with a clone of {task.repo}, or run where the registry can be reached: "
            f"docker pull {task.image}"
        ) from error


def pull(client: DockerClient, image: str) -> str:
    """The image was fetched from its registry."""
    repository, _, tag = image.rpartition(":") if ":" in image.split("/")[-1] else (image, "", "")
    try:
        with engine_boundary(f"pulling {image}"):
            client.api.pull(repository or image, tag=tag or "latest")
    except SandboxError as error:
        raise ImageError(f"could not be pulled ({error})") from error
    return image


def image_exists(client: DockerClient, image: str) -> bool:
    from docker.errors import ImageNotFound

    with engine_boundary(f"looking for image {image}"):
        try:
            client.api.inspect_image(image)
        except ImageNotFound:
            return False
    return True


def _build_from_commit(
    client: DockerClient, task: Task, recipe: Recipe, git_dir: Path, digest: str, cache: Path
) -> str:
    name = "contextrl-" + task.repo.replace("/", "__").lower()
    with tempfile.TemporaryDirectory(prefix="contextrl-tree-") as scratch:
        tree = Path(scratch)
        image = _repository_image(client, name, digest, recipe)
        if image_exists(client, image):
            return image
        export_commit(git_dir, task.base_commit, tree)
        return _build_repository(
            client, name=name, tree=tree, tree_digest=digest, recipe=recipe, cache=cache
        )


def _build_repository(
    client: DockerClient, *, name: str, tree: Path, tree_digest: str, recipe: Recipe, cache: Path
) -> str:
    image = _repository_image(client, name, tree_digest, recipe)
    if image_exists(client, image):
        return image
    dependencies = _ensure_dependencies(client, recipe.requirements, cache)
    logger.info("building %s", image)
    with _builder(client, dependencies) as builder:
        builder.put_tree(tree, "/testbed", uid=AGENT_UID)
        install = list(recipe.install) or [_path_file(recipe.paths)]
        builder.run("cd /testbed\n" + "\n".join(install))
        # Inode numbers differ in every container: with full checks git would read every file again.
        builder.run(
            f"""
            cd /testbed
            export GIT_AUTHOR_DATE=@{FIXED_TIME} GIT_COMMITTER_DATE=@{FIXED_TIME}
            git init -q -b main
            git config core.checkStat minimal
            git config core.trustctime false
            git config gc.auto 0
            printf '%s\\n' {" ".join(f"'{pattern}'" for pattern in JUNK)} > .git/info/exclude
            git add -A
            git -c user.name=contextrl -c user.email=contextrl@localhost commit -q -m 'Initial commit'
            rm -rf .git/hooks .git/logs
            """,
            user="agent",
        )
        builder.commit(image, user="agent", workdir="/testbed")
    return image


def _ensure_dependencies(client: DockerClient, requirements: Sequence[str], cache: Path) -> str:
    base = ensure_base(client)
    image = _dependencies_image(base, requirements)
    if image_exists(client, image):
        return image
    if not any(_project_name(requirement) == "pytest" for requirement in requirements):
        raise ImageError(f"expected pytest among the requirements, found {list(requirements)}")
    wheels = wheelhouse(requirements, cache=cache)
    logger.info("building %s from %d wheels", image, len(list(wheels.iterdir())))
    with _builder(client, base) as builder:
        builder.put_tree(wheels, "/tmp/wheels", uid=0)
        listed = " ".join(f"'{requirement}'" for requirement in requirements)
        builder.run(
            f"python3 -m venv {VENV}\n"
            f"{VENV}/bin/pip install --quiet --no-index --find-links /tmp/wheels {listed}\n"
            "rm -rf /tmp/wheels /root/.cache"
        )
        builder.commit(image, user="root", workdir="/")
    return image


def _repository_image(client: DockerClient, name: str, tree_digest: str, recipe: Recipe) -> str:
    base = _tagged(BASE_NAME, ["base", SUITE, BASE_PACKAGES])
    dependencies = _dependencies_image(base, recipe.requirements)
    return _tagged(name, ["repository", dependencies, tree_digest, recipe.install, recipe.paths])


def _dependencies_image(base: str, requirements: Sequence[str]) -> str:
    return _tagged(DEPENDENCIES_NAME, ["dependencies", base, sorted(requirements)])


def _tagged(name: str, content: object) -> str:
    text = json.dumps([BUILDER_VERSION, content])
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


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


def _host_sources() -> list[str]:
    """The host's own apt sources for the suite, as mmdebstrap takes them; else its default mirror."""
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    found = []
    for place in places:
        if place.suffix not in {".list", ".sources"} or not place.is_file():
            continue
        text = place.read_text(encoding="utf-8", errors="replace")
        words = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        # The suite as a word: `cloud-sdk-bookworm` of a third party is another archive.
        if any(SUITE in line.split() for line in words):
            found.append(str(place))
    return found


class _Builder:
    """A running container that will become an image."""

    def __init__(self, client: DockerClient, container_id: str) -> None:
        self._client = client
        self._id = container_id

    def put_tree(self, source: Path, target: str, *, uid: int) -> None:
        """The folder's files are at `target`, owned by `uid`, with one modification time."""

        def normalise(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            if not (member.isreg() or member.isdir() or member.issym()):
                return None
            member.uid = member.gid = uid
            member.uname = member.gname = ""
            member.mtime = FIXED_TIME
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            return member

        with tempfile.TemporaryFile(prefix="contextrl-tree-") as stream:
            with tarfile.open(fileobj=stream, mode="w") as tar:
                tar.add(source, arcname=target.lstrip("/"), filter=normalise)
            stream.seek(0)
            with engine_boundary(f"copying files to {target}"):
                self._client.api.put_archive(self._id, "/", stream)

    def run(self, script: str, *, user: str = "root") -> None:
        channel = ExecChannel(
            self._client,
            self._id,
            ["bash", "-euo", "pipefail", "-c", script],
            user=user,
            environment={"PATH": PATH, "LANG": "C.UTF-8"},
        )
        output = bytearray()
        deadline = time.monotonic() + BUILD_TIMEOUT_S
        try:
            while (chunk := channel.receive(1.0)) != b"":
                output += chunk or b""
                del output[:-4000]
                if time.monotonic() > deadline:
                    raise ImageError(f"a build step ran longer than {BUILD_TIMEOUT_S:.0f} s")
            code = channel.exit_code()
        finally:
            channel.close()
        if code != 0:
            lines = output.decode(errors="replace").strip().splitlines() or ["no output"]
            raise ImageError(f"a build step failed with {code}: {' | '.join(lines[-4:])[:500]}")

    def commit(self, image: str, *, user: str, workdir: str) -> None:
        repository, tag = image.split(":")
        changes = [
            f"ENV PATH={PATH}",
            f"ENV VIRTUAL_ENV={VENV}",
            f"USER {user}",
            f"WORKDIR {workdir}",
            "ENTRYPOINT []",
            'CMD ["bash"]',
        ]
        with engine_boundary(f"saving image {image}"):
            self._client.api.commit(
                self._id, repository=repository, tag=tag, changes="\n".join(changes)
            )


@contextlib.contextmanager
def _builder(client: DockerClient, image: str) -> Iterator[_Builder]:
    """A container of `image` without a network, removed at the end whatever happens."""
    with engine_boundary(f"starting a build from {image}"):
        container_id = client.api.create_container(
            image,
            entrypoint=["sleep"],
            command=["infinity"],
            user="0:0",
            network_disabled=True,
            labels={
                LABEL_RUN: "image-build",
                LABEL_HOST: socket.gethostname(),
                LABEL_PID: owner_label(os.getpid()),
                LABEL_DEADLINE: str(int(time.time() + 2 * BUILD_TIMEOUT_S)),
            },
            host_config=client.api.create_host_config(network_mode="none", init=True),
        )["Id"]
    try:
        with engine_boundary(f"starting a build from {image}"):
            client.api.start(container_id)
        yield _Builder(client, container_id)
    finally:
        with engine_boundary("removing a build container"):
            client.api.remove_container(container_id, force=True, v=True)


def _check_exists(client: DockerClient, image: str) -> None:
    if not image_exists(client, image):
        raise ImageError(
            f"the engine accepted image {image} but does not list it; is its disk full?"
        )
