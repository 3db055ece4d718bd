"""Images fetched when the first task needs them, a few at a time and each one once."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable

from contextrl.envs.types import Sandbox, SandboxProvider, Task

FETCHES_AT_ONCE = 4
"""SWE-Gym's images are gigabytes each, and registries limit the rate."""


class SupplyingProvider:
    """A `SandboxProvider` that sees to a task's image first. As thread-safe as `provider`.

    `ensure` makes the image local or raises `ImageError`, e.g. `images.ensure_image`; after a
    failure the next start asks again, because a rate limit passes.
    """

    def __init__(self, provider: SandboxProvider, ensure: Callable[[Task], object]) -> None:
        self._provider = provider
        self._ensure = ensure
        self._slots = threading.Semaphore(FETCHES_AT_ONCE)
        self._lock = threading.Lock()
        self._of_image: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._local: set[str] = set()

    def start(self, task: Task) -> Sandbox:
        with self._lock:
            fetching = self._of_image[task.image]
        with fetching:
            if task.image not in self._local:
                with self._slots:
                    self._ensure(task)
                self._local.add(task.image)
        return self._provider.start(task)

    def close(self) -> None:
        self._provider.close()
