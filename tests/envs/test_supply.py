"""Images come when they are needed: once each, and never more than a few at a time."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from contextrl.envs.errors import ImageError
from contextrl.envs.supply import FETCHES_AT_ONCE, SupplyingProvider


class Provider:
    """Counts what is started."""

    def __init__(self):
        self.started = []

    def start(self, task):
        self.started.append(task.image)

    def close(self):
        self.started.append("closed")


class Registry:
    def __init__(self, failures=0):
        self.fetched = []
        self.at_once = self.most_at_once = 0
        self._failures = failures
        self._lock = threading.Lock()

    def __call__(self, task):
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            failing, self._failures = self._failures > 0, self._failures - 1
        time.sleep(0.02)
        with self._lock:
            self.at_once -= 1
        if failing:
            raise ImageError("rate limit")
        self.fetched.append(task.image)
        return task.image


def tasks(tiny_task, n, images):
    return [tiny_task.model_copy(update={"image": f"i:{k % images}"}) for k in range(n)]


def test_each_image_is_fetched_once_however_many_ask(tiny_task):
    inner, registry = Provider(), Registry()
    provider = SupplyingProvider(inner, registry)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(provider.start, tasks(tiny_task, 32, images=2)))
    assert sorted(registry.fetched) == ["i:0", "i:1"]
    assert len(inner.started) == 32


def test_few_are_fetched_at_the_same_time(tiny_task):
    registry = Registry()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(SupplyingProvider(Provider(), registry).start, tasks(tiny_task, 16, 16)))
    assert 1 < registry.most_at_once <= FETCHES_AT_ONCE


def test_a_failed_fetch_starts_nothing_and_is_tried_again(tiny_task):
    inner, registry = Provider(), Registry(failures=1)
    provider = SupplyingProvider(inner, registry)
    with pytest.raises(ImageError):
        provider.start(tiny_task)
    assert inner.started == []
    provider.start(tiny_task)
    assert inner.started == [tiny_task.image]
