"""One digest of all that the files of an image are, to compare builds and machines by.

Image ids differ with every build: they hold dates. What counts for a task is its files.
"""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO, TYPE_CHECKING, cast

from contextrl.envs.engine import engine_boundary

if TYPE_CHECKING:
    from docker import DockerClient

# The engine puts these into every container, and git keeps inode numbers and times in its index.
LEFT_OUT = ("dev/", "proc/", "sys/", "etc/hostname", "etc/hosts", "etc/resolv.conf", ".dockerenv")
INDEX = ".git/index"


def tree_digest(client: DockerClient, image: str) -> str:
    """A digest of names, kinds, modes, owners, links and contents. Times are not part of it."""
    return hashlib.sha256("\n".join(sorted(file_lines(client, image))).encode()).hexdigest()


def file_lines(client: DockerClient, image: str) -> list[str]:
    """One line for each file: what the digest is made of, to see what differs."""
    with engine_boundary(f"reading the files of {image}"):
        container = client.api.create_container(image, command=["true"])["Id"]
        try:
            stream = cast("IO[bytes]", _Chunks(client.api.export(container, chunk_size=1 << 20)))
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                return [line for member in tar if (line := _line(tar, member))]
        finally:
            client.api.remove_container(container, force=True, v=True)


def _line(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    name = member.name.removeprefix("./")
    if f"{name}/".startswith(LEFT_OUT) or name in LEFT_OUT or name.endswith(INDEX):
        return ""
    content = "-"
    if (file := tar.extractfile(member) if member.isreg() else None) is not None:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        content = digest.hexdigest()
    kind = member.type.decode() if not member.islnk() else "hard link"
    owner = f"{member.uid}:{member.gid}"
    return f"{name!r} {kind} {member.mode:o} {owner} {member.linkname!r} {content}"


class _Chunks:
    """An iterator of bytes as a file to read from."""

    def __init__(self, chunks: object) -> None:
        self._chunks = iter(chunks)  # type: ignore[call-overload]
        self._left = b""

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (chunk := next(self._chunks, b"")):
            self._left += chunk
        found, self._left = self._left[:size], self._left[size:]
        return found
