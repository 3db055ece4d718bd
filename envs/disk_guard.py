"""A sandbox that fills the disk is stopped before the host suffers.

Docker's usual storage driver knows no quota, so a thread watches the free space below the engine's
folder and asks for sizes only when it shrinks. A container over its limit loses its processes and
keeps its files; its next command may delete some.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from contextrl.envs.cleanup import LABEL_RUN
from contextrl.envs.engine import engine_boundary
from contextrl.envs.errors import SandboxError

if TYPE_CHECKING:
    from docker import DockerClient

    from contextrl.envs.container import Container

logger = logging.getLogger(__name__)

POLL_S = 0.5
SHRUNK_BYTES = 32 << 20
"""Less than this is not worth asking the engine, which walks each container's files."""


class DiskGuard:
    """Watches the containers of one run until `stop`. Does nothing for an engine elsewhere."""

    def __init__(
        self,
        client: DockerClient,
        *,
        run_id: str,
        limit_bytes: int,
        live: Callable[[], Collection[Container]],
    ) -> None:
        self._client = client
        self._filters = {"label": [f"{LABEL_RUN}={run_id}"]}
        self._limit_bytes = limit_bytes
        self._live = live
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watching from now on; again and again is harmless."""
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(
                    target=self._watch, name="contextrl-disk-guard", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        with engine_boundary("asking for the engine's folder"):
            folder = str(self._client.api.info().get("DockerRootDir", ""))
        if not os.path.isdir(folder):
            return
        known = _free(folder)
        while not self._stop.wait(POLL_S):
            free = _free(folder)
            if free > known - SHRUNK_BYTES:
                known = max(known, free)
                continue
            known = free
            with contextlib.suppress(SandboxError):  # asked again when more was written
                self.check()

    def check(self) -> None:
        """Every live container over the limit has lost its processes."""
        with engine_boundary("asking for the sizes of sandboxes"):
            found = self._client.api.containers(size=True, filters=self._filters)
        sizes = {one["Id"]: int(one.get("SizeRw") or 0) for one in found}
        for container in self._live():
            size = sizes.get(container.id, 0)
            if size > self._limit_bytes:
                logger.warning(
                    "sandbox %s wrote %d MB, its limit is %d: its processes are stopped",
                    container.id[:12],
                    size >> 20,
                    self._limit_bytes >> 20,
                )
                container.disk_limit_reached = True
                container.revive()


def _free(folder: str) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
