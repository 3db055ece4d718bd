"""Fixtures for tests that need a Docker engine. Images are cached between runs by their content."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from contextrl.envs.base_image import ensure_base
from contextrl.envs.bubblewrap import check_bubblewrap
from contextrl.envs.builder import EngineImages
from contextrl.envs.docker import DockerProvider, SandboxLimits
from contextrl.envs.engine import connect
from contextrl.envs.errors import EngineUnavailableError
from contextrl.envs.images import build_repo_image
from contextrl.envs.namespace import NamespaceProvider
from contextrl.envs.types import Task, TaskSource
from contextrl.envs.unpacked import unpack

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that:
# tests of Ctrl-C would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.default_int_handler)

# A package with one bug to inject, and test ids of every awkward shape.
TINY_FILES = {
    "tiny.py": "def add(a, b):\n    return a + b\n\n\ndef double(a):\n    return 2 * a\n",
    "setup.cfg": "[tool:pytest]\naddopts = --strict-markers\n",
    "tests/__init__.py": "",
    "tests/test_tiny.py": """\
import pytest

from tiny import add, double


def test_add():
    assert add(1, 2) == 3


class TestDouble:
    def test_small(self):
        assert double(2) == 4

    class TestInner:
        def test_zero(self):
            assert double(0) == 0


@pytest.mark.parametrize("text", ["a b", "x[1]", "p::q", "a/b.py", "<&>", "plain"])
def test_text(text):
    assert add(text, "!") == text + "!"


@pytest.mark.xfail
def test_expected_failure():
    assert add(1, 1) == 3


@pytest.mark.skip
def test_skipped():
    pass
""",
}
TINY_BUG = """\
--- a/tiny.py
+++ b/tiny.py
@@ -1,5 +1,5 @@
 def add(a, b):
-    return a + b
+    return a - b
 
 
 def double(a):
"""
TINY_FIX = """\
--- a/tiny.py
+++ b/tiny.py
@@ -1,5 +1,5 @@
 def add(a, b):
-    return a - b
+    return a + b
 
 
 def double(a):
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: begun last, they would leave a worker alone with them.

    `slow(seconds)` weighs more than `slow`.
    """
    weight: Counter[Path] = Counter()
    for item in items:
        for mark in item.iter_markers("slow"):
            weight[item.path] += mark.args[0] if mark.args else 10
    items.sort(key=lambda item: -weight[item.path])


@pytest.fixture(scope="session")
def tiny_files() -> dict[str, str]:
    return dict(TINY_FILES)


@pytest.fixture(scope="session")
def docker_client():
    """An engine that answers. Where CI promised one its absence fails, elsewhere it skips."""
    try:
        client = connect()
    except EngineUnavailableError as error:
        if os.environ.get("CONTEXTRL_REQUIRE_DOCKER") == "1":
            pytest.fail(f"CONTEXTRL_REQUIRE_DOCKER=1, but {error}")
        pytest.skip(str(error))
    yield client
    client.close()


@pytest.fixture(scope="session")
def base_image(docker_client) -> str:
    return ensure_base(EngineImages(docker_client))


@pytest.fixture(scope="session")
def tiny_image(docker_client, base_image, tmp_path_factory) -> str:
    """`TINY_FILES` in an image of ours, with pytest."""
    tree = tmp_path_factory.mktemp("tiny")
    write_files(tree)
    return build_repo_image(
        EngineImages(docker_client),
        name="contextrl-test-tiny",
        tree=tree,
        requirements=["pytest==8.3.4"],
    )


@pytest.fixture(scope="session")
def docker_provider(docker_client) -> Iterator[DockerProvider]:
    limits = SandboxLimits(memory_mb=256, pids=128, max_output_bytes=64 * 1024)
    with DockerProvider(docker_client, limits=limits) as provider:
        yield provider


@pytest.fixture(scope="session")
def bubblewrap() -> None:
    """Namespaces can be made. Where CI promised them their absence fails, elsewhere it skips."""
    try:
        check_bubblewrap()
    except EngineUnavailableError as error:
        if os.environ.get("CONTEXTRL_REQUIRE_BUBBLEWRAP") == "1":
            pytest.fail(f"CONTEXTRL_REQUIRE_BUBBLEWRAP=1, but {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def namespace_provider(docker_client, tiny_image, bubblewrap) -> Iterator[NamespaceProvider]:
    """Docker only unpacks the image, once for each content of it; the sandboxes do without."""
    roots = Path(tempfile.gettempdir(), "contextrl-test-roots")
    unpack(docker_client, tiny_image, roots)
    limits = SandboxLimits(memory_mb=512, pids=200, disk_mb=64, max_output_bytes=64 * 1024)
    with NamespaceProvider(roots, limits=limits) as provider:
        yield provider


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    """The bug is injected; its image is a name that only Docker tests replace."""
    return Task(
        task_id="tiny-1",
        source=TaskSource.MUTATION,
        repo="example/tiny",
        base_commit="0" * 40,
        problem="add subtracts",
        image="contextrl-test-tiny:none",
        setup_patch=TINY_BUG,
        gold_patch=TINY_FIX,
        fail_to_pass=("tests/test_tiny.py::test_add",),
        pass_to_pass=("tests/test_tiny.py::TestDouble::test_small",),
        test_timeout_s=60.0,
    )


def write_files(folder: Path) -> None:
    for name, content in TINY_FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
