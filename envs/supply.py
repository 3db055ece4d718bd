"""Images fetched when a task needs them, or a little earlier: a few at a time and each one once."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from contextrl.envs.errors import ImageError, SandboxError
from contextrl.envs.image_store import ImageStore
from contextrl.envs.sandbox_base import Closing
from contextrl.envs.types import Sandbox, SandboxProvider, Task

logger = logging.getLogger(__name__)

FETCHES_AT_ONCE = 4
"""SWE-Gym's images are gigabytes each, and registries limit the rate."""
PREFETCHED = 8
"""Images fetched ahead of their tasks: more would push each other out of a small budget."""


class SupplyingProvider(Closing):
    """A `SandboxProvider` that sees to a task's image first. As thread-safe as `provider`.

    `ensure` makes the image local and gives its local name, or raises `ImageError`, e.g.
    `images.ensure_image`; after a failure the next start asks again, because a rate limit passes.
    With a `store`, an image is not evicted between being ensured and being used.
    """

    def __init__(
        self,
        provider: SandboxProvider,
        ensure: Callable[[Task], str],
        *,
        store: ImageStore | None = None,
    ) -> None:
        self._provider = provider
        self._ensure = ensure
        self._store = store
        self._slots = threading.Semaphore(FETCHES_AT_ONCE)
        self._lock = threading.Lock()
        self._of_image: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._local: dict[str, str] = {}
        """Name of the local image for each that a task named: another one if it was built here."""
        self._wanted: set[str] = set()
        """Images on their way to be prefetched."""
        self._ahead = ThreadPoolExecutor(FETCHES_AT_ONCE // 2, thread_name_prefix="prefetch")

    def start(self, task: Task) -> Sandbox:
        pinned = self._store.pinned(task.image) if self._store else contextlib.nullcontext()
        with pinned:
            try:
                return self._provider.start(self.with_image(task))
            except ImageError:  # somebody removed it, or another process of ours evicted it
                with self._lock:
                    known = self._local.pop(task.image, None)
                if known is None:
                    raise
                return self._provider.start(self.with_image(task))

    def with_image(self, task: Task) -> Task:
        """The task with a local image. Raises `ImageError`."""
        image = self._make_local(task)
        return task if image == task.image else task.model_copy(update={"image": image})

    def prefetch(self, tasks: Iterable[Task]) -> None:
        """The images of these tasks, as many as is wise, are on their way. Returns at once.

        What fails here is tried again, and reported, by the start that needs it.
        """
        for task in tasks:
            with self._lock:
                known = task.image in self._local or task.image in self._wanted
                if known or len(self._wanted) >= PREFETCHED:
                    continue
                self._wanted.add(task.image)
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                self._ahead.submit(self._prefetch, task)

    def close(self) -> None:
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._provider.close()

    def _make_local(self, task: Task) -> str:
        with self._lock:
            fetching = self._of_image[task.image]
        with fetching:
            if task.image not in self._local:
                with self._slots:
                    image = self._ensure(task)
                with self._lock:
                    self._local[task.image] = image
                return image
            with self._lock:
                image = self._local[task.image]
            if self._store is not None:
                self._store.used(image)
            return image

    def _prefetch(self, task: Task) -> None:
        try:
            self._make_local(task)
        except SandboxError as error:
            logger.info("prefetching %s: %s", task.image, error)
        finally:
            with self._lock:
                self._wanted.discard(task.image)
