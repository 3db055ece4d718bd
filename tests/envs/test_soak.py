"""Many episodes with accidents, and nothing grows. CONTEXTRL_SOAK_EPISODES=300: the long run."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contextrl.envs.docker import DockerProvider, SandboxLimits
from contextrl.envs.errors import SandboxError

EPISODES = int(os.environ.get("CONTEXTRL_SOAK_EPISODES", "16"))


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def leftovers() -> set[str]:
    """Of this process: others may run sandboxes, too."""
    return {
        path.name for path in Path(tempfile.gettempdir()).glob(f"contextrl-ns-*-{os.getpid()}-*")
    }


@pytest.mark.docker
@pytest.mark.slow
def test_nothing_grows_over_many_episodes_with_accidents(
    docker_client, namespace_provider, tiny_task, tiny_image
):
    task = tiny_task.model_copy(update={"image": tiny_image})
    chance = random.Random(0)
    accidents = ["none", "kill", "remove", "timeout", "kill all", "no close"]
    plan = [(chance.choice(accidents), chance.random() < 0.5) for _ in range(EPISODES)]
    failures = 0

    def episode(provider: DockerProvider, accident: str, is_docker: bool) -> bool:
        """Whether the infrastructure failed, as it may where a container is removed."""
        sandbox = (provider if is_docker else namespace_provider).start(task)
        try:
            sandbox.exec("echo $RANDOM > file; sleep 987 & yes | head -c 1000000", timeout_s=20)
            if accident == "kill" and is_docker:
                docker_client.api.kill(sandbox.sandbox_id)
            elif accident == "remove" and is_docker:
                docker_client.api.remove_container(sandbox.sandbox_id, force=True)
            elif accident == "timeout":
                sandbox.exec("while :; do :; done", timeout_s=0.2)
            elif accident == "kill all":
                sandbox.exec("kill -9 -1", timeout_s=5)
            sandbox.exec("true", timeout_s=20)
            return "file" not in sandbox.diff()
        except SandboxError:
            return True
        finally:
            if not (accident == "no close" and is_docker):
                sandbox.close()

    # Each provider has a thread of its own and connections in a pool: compared from run to run.
    for count, part in enumerate((plan[:4], plan[4:])):
        with (
            DockerProvider(docker_client, limits=SandboxLimits(memory_mb=256)) as provider,
            ThreadPoolExecutor(4) as pool,
        ):
            failures += sum(pool.map(lambda one: episode(provider, *one), part))
            run_id = provider.run_id
        label = {"label": f"contextrl.run={run_id}"}
        assert docker_client.api.containers(all=True, filters=label) == []
        if count == 0:
            files, threads, folders = open_files(), threading.active_count(), leftovers()
    assert failures <= sum(accident in {"remove", "kill all"} for accident, _ in plan)
    assert open_files() <= files + 8
    assert threading.active_count() <= threads + 1
    assert leftovers() <= folders
    with contextlib.suppress(FileNotFoundError):
        assert b"sleep\x00987" not in b"".join(
            path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")
        )
