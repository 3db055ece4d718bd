"""Where images are made and kept: an engine (`builder`), or a folder of roots (`root_images`)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Build(Protocol):
    """Files that will become an image."""

    def put_tree(self, source: Path, target: str, *, uid: int) -> None:
        """The folder's files are at `target`, owned by `uid`, with one modification time."""
        ...

    def run(self, script: str, *, user: str = "root") -> None:
        """Bash in it, without a network. Raises `ImageError` if it fails."""
        ...

    def commit(self, image: str, *, user: str, workdir: str) -> str:
        """The files are an image, under this name if it is not empty; its id."""
        ...


class ImagePlace(Protocol):
    """Every method raises `SandboxError` where the place itself fails."""

    def has(self, image: str) -> bool: ...

    def add_base(self, archive: Path, image: str) -> None:
        """A tar archive of a whole file system becomes an image."""
        ...

    def building(self, image: str) -> AbstractContextManager[Build]:
        """From the files of `image`, a name or what `commit` gave; gone at the end."""
        ...

    def remove(self, image: str) -> None: ...
