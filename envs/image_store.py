"""Which images we brought onto this machine, and room for more: a budget, least recent first.

Only what we pulled or built ourselves is ever removed. Who brought an image, and when it last
served, is in one small database per user, shared by all processes and engines. What is lost with it
is only the right to remove: an image without an entry is somebody else's.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contextrl.envs.engine import engine_boundary
from contextrl.envs.errors import ImageError, SandboxError

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

DEFAULT_LEDGER = Path("~/.cache/contextrl/images.sqlite")
_TABLE = (
    "CREATE TABLE IF NOT EXISTS images (engine TEXT, name TEXT, id TEXT, last_used REAL, "
    "PRIMARY KEY (engine, name))"
)


@dataclass(frozen=True, slots=True)
class OwnImage:
    name: str
    id: str
    last_used: float
    """Seconds since 1970."""


class ImageStore:
    """The images of ours in one engine. Safe from many threads and processes."""

    def __init__(
        self,
        client: DockerClient,
        *,
        budget_bytes: int | None = None,
        ledger: Path = DEFAULT_LEDGER,
    ) -> None:
        """Without a budget nothing is removed unless `remove_all` is called."""
        self._client = client
        self._budget_bytes = budget_bytes
        self._ledger = ledger.expanduser()
        self._lock = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._layers: dict[str, dict[str, int]] = {}
        self._said_full = False
        with engine_boundary("asking the engine for its id"):
            self._engine = str(client.api.info().get("ID", ""))
        self._prepare_ledger()

    @contextlib.contextmanager
    def pinned(self, image: str) -> Iterator[None]:
        """Not removed inside the block: it is about to be used."""
        with self._lock:
            self._pins[image] += 1
        try:
            yield
        finally:
            with self._lock:
                self._pins[image] -= 1

    def added(self, image: str) -> None:
        """We brought this image; others of ours may have to go for it."""
        with self._open() as ledger:
            ledger.execute(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)",
                (self._engine, image, self._id(image), time.time()),
            )
        self.make_room()

    def used(self, image: str) -> None:
        """It serves now. An image that is not ours stays so."""
        with self._open() as ledger:
            ledger.execute(
                "UPDATE images SET last_used = ? WHERE engine = ? AND name = ?",
                (time.time(), self._engine, image),
            )

    def owned(self) -> list[OwnImage]:
        """Least recently used first."""
        with self._open() as ledger:
            rows = ledger.execute(
                "SELECT name, id, last_used FROM images WHERE engine = ? ORDER BY last_used",
                (self._engine,),
            ).fetchall()
        return [OwnImage(*row) for row in rows]

    def make_room(self) -> list[str]:
        """Our images take at most the budget, or all others of them are in use; what went."""
        if self._budget_bytes is None:
            return []
        removed: list[str] = []
        with self._lock:
            sizes = {image.name: self._layers_of(image) for image in self.owned()}
            for image in self.owned():
                if _together(sizes.values()) <= self._budget_bytes:
                    return removed
                others = [layers for name, layers in sizes.items() if name != image.name]
                frees = _together(sizes.values()) - _together(others)
                if not self._pins[image.name] and frees and self._remove(image):
                    removed.append(image.name)
                    del sizes[image.name]
            left = _together(sizes.values())
            if left > self._budget_bytes and not self._said_full:
                self._said_full = True
                logger.warning(
                    "images in use take %.1f GB, the budget is %.1f GB: give it room for twice as "
                    "many images as sandboxes run at once",
                    left / 1e9,
                    self._budget_bytes / 1e9,
                )
        return removed

    def remove_all(self) -> list[str]:
        """None of ours is left but those in use; what went."""
        with self._lock:
            return [image.name for image in self.owned() if self._remove(image)]

    def _remove(self, image: OwnImage) -> bool:
        """Whether it is gone. One that became the user's, or is in use, stays."""
        try:
            with engine_boundary(f"looking for image {image.name}"):
                found = self._client.api.inspect_image(image.name)
            names = {_short(name) for name in found.get("RepoTags") or ()}
            repositories = {name.partition("@")[0] for name in found.get("RepoDigests") or ()}
            own = _short(image.name)
            strangers = (names - {own}) | (repositories - {_repository(own)})
            if found["Id"] != image.id or strangers:
                self._forget(image)  # tagged, pulled or built again by somebody else: theirs now
                return False
            # Without force, so that the engine refuses for an image that any container uses.
            with engine_boundary(f"removing image {image.name}"):
                self._client.api.remove_image(image.name, force=False)
        except ImageError:
            self._forget(image)
            return False
        except SandboxError as error:
            logger.info("image %s stays: %s", image.name, error)
            return False
        self._forget(image)
        unused_s = time.time() - image.last_used
        logger.info("removed image %s, last used %.0f s ago", image.name, unused_s)
        return True

    def _layers_of(self, image: OwnImage) -> dict[str, int]:
        """Bytes by layer; images that share a layer name it alike."""
        if image.id not in self._layers:
            try:
                with engine_boundary(f"asking for the layers of {image.name}"):
                    history = self._client.api.history(image.id)
            except SandboxError:
                history = []
            layers, chain = {}, ""
            for step in reversed(history):
                chain = str(hash((chain, step["Created"], step["CreatedBy"], step["Size"])))
                layers[chain] = int(step["Size"])
            self._layers[image.id] = layers
        return self._layers[image.id]

    def _id(self, image: str) -> str:
        with engine_boundary(f"looking for image {image}"):
            return str(self._client.api.inspect_image(image)["Id"])

    def _forget(self, image: OwnImage) -> None:
        with self._open() as ledger:
            ledger.execute(
                "DELETE FROM images WHERE engine = ? AND name = ?", (self._engine, image.name)
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self._ledger, timeout=30.0)) as ledger, ledger:
                yield ledger
        except sqlite3.Error as error:
            raise SandboxError(f"the list of our images, {self._ledger}: {error}") from error

    def _prepare_ledger(self) -> None:
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._open() as ledger:
                ledger.execute(_TABLE)
        except SandboxError as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.OperationalError) or not self._ledger.is_file():
                raise  # locked, no permission, a full disk: nothing is wrong with its content
            broken = self._ledger.with_suffix(".broken")
            self._ledger.replace(broken)
            logger.warning("%s; it is now %s, and a new one begins", error, broken)
            with self._open() as ledger:
                ledger.execute(_TABLE)


def _together(images: Iterable[Mapping[str, int]]) -> int:
    """Bytes of all these images, a shared layer counted once."""
    union: dict[str, int] = {}
    for layers in images:
        union.update(layers)
    return sum(union.values())


def _short(name: str) -> str:
    """As the engine lists it: without the default registry, with a tag."""
    name = name.removeprefix("docker.io/").removeprefix("library/")
    return name if "@" in name or ":" in name.split("/")[-1] else f"{name}:latest"


def _repository(name: str) -> str:
    name = name.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.split("/")[-1] else name
