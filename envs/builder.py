"""A container that becomes an image. It runs like a sandbox, without a network."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from contextrl.envs.cleanup import LABEL_DRAFT, draft_label, labels
from contextrl.envs.engine import ExecChannel, engine_boundary
from contextrl.envs.errors import ImageError

if TYPE_CHECKING:
    from docker import DockerClient

FIXED_TIME = 946684800
"""2000-01-01: files of an image do not depend on when it was built."""
VENV = "/opt/venv"
PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILD_TIMEOUT_S = 1200.0


def content_tag(name: str, version: int, content: object) -> str:
    """`name:digest` of everything that goes into an image; `version` is that of its steps."""
    text = json.dumps([version, content])
    return f"{name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def image_exists(client: DockerClient, image: str) -> bool:
    """Whether the engine holds the image already."""
    from docker.errors import ImageNotFound

    with engine_boundary(f"looking for image {image}"):
        try:
            client.api.inspect_image(image)
        except ImageNotFound:
            return False
    return True


@contextlib.contextmanager
def packed(source: Path, target: str, uid: int) -> Iterator[IO[bytes]]:
    """A tar stream of the folder's files at `target`, owned by `uid`, with one time."""

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
        yield stream


class EngineImages:
    """The images of a Docker engine, as a place to build in."""

    def __init__(self, client: DockerClient) -> None:
        self._client = client

    def has(self, image: str) -> bool:
        return image_exists(self._client, image)

    def add_base(self, archive: Path, image: str) -> None:
        repository, tag = image.split(":")
        with engine_boundary(f"importing image {image}"):
            # By name: given a stream, the SDK sends a header that the engine refuses.
            self._client.api.import_image_from_file(
                str(archive),
                repository=repository,
                tag=tag,
                changes=["ENV LANG=C.UTF-8", 'CMD ["bash"]'],
            )
        if not self.has(image):
            raise ImageError(
                f"the engine accepted image {image} but does not list it; is its disk full?"
            )

    def building(self, image: str) -> contextlib.AbstractContextManager[Builder]:
        return builder(self._client, image)

    def remove(self, image: str) -> None:
        with engine_boundary(f"removing image {image}"):
            self._client.api.remove_image(image)


class Builder:
    """A running container that will become an image."""

    def __init__(self, client: DockerClient, container_id: str) -> None:
        self._client = client
        self._id = container_id

    def put_tree(self, source: Path, target: str, *, uid: int) -> None:
        """The folder's files are at `target`, owned by `uid`, with one modification time."""

        with packed(source, target, uid) as stream, engine_boundary(f"copying files to {target}"):
            self._client.api.put_archive(self._id, "/", stream)

    def run(self, script: str, *, user: str = "root") -> None:
        channel = ExecChannel(
            self._client,
            self._id,
            ["bash", "-euo", "pipefail", "-c", script],
            user=user,
            environment={"PATH": PATH, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"},
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

    def commit(self, image: str, *, user: str, workdir: str) -> str:
        """The container's files are an image, under this name if it is not empty; its id."""
        repository, _, tag = image.partition(":")
        changes = [
            f"ENV PATH={PATH}",
            f"ENV VIRTUAL_ENV={VENV}",
            f"USER {user}",
            f"WORKDIR {workdir}",
            'CMD ["bash"]',
        ]
        if not image:
            changes.append(f"LABEL {LABEL_DRAFT}={draft_label()}")
        with engine_boundary(f"saving image {image}"):
            saved = self._client.api.commit(
                self._id,
                repository=repository or None,
                tag=tag or None,
                changes="\n".join(changes),
            )
        return str(saved["Id"])


@contextlib.contextmanager
def builder(client: DockerClient, image: str) -> Iterator[Builder]:
    """A container of `image` without a network, removed at the end whatever happens."""
    with engine_boundary(f"starting a build from {image}"):
        container_id = client.api.create_container(
            image,
            # No entrypoint: an image that is made of this container would keep it, whatever the
            # commit says.
            command=["sleep", "infinity"],
            user="0:0",
            network_disabled=True,
            labels=labels("image-build", lease_s=2 * BUILD_TIMEOUT_S),
            host_config=client.api.create_host_config(network_mode="none", init=True),
        )["Id"]
    try:
        with engine_boundary(f"starting a build from {image}"):
            client.api.start(container_id)
        yield Builder(client, container_id)
    finally:
        with engine_boundary("removing a build container"):
            client.api.remove_container(container_id, force=True, v=True)
