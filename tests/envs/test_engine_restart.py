"""An engine of the test's own is stopped and started again in the middle of a batch."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from contextrl.agents.rollout import retry_infrastructure
from contextrl.envs.docker import DockerProvider, SandboxLimits
from contextrl.envs.engine import answers
from contextrl.envs.errors import SandboxError


class Engine:
    """A dockerd apart from the machine's: its own folders, socket and network namespace.

    Without the last, `--bridge=none` would take the bridge away from the machine's own engine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["unshare", "--net", "dockerd"]  # becomes dockerd, so ending it ends that
        command += [f"--host={self.host}", f"--data-root={self.folder}/data"]
        command += [f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid"]
        command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None


@pytest.fixture
def engine(docker_client, tiny_image, tmp_path_factory):
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("needs root and dockerd")
    engine = Engine(tmp_path_factory.mktemp("e"))
    engine.start()
    # A version, so that nothing is asked before the engine answers.
    client = docker.DockerClient(base_url=engine.host, version="1.41", timeout=60, max_pool_size=32)
    try:
        deadline = time.monotonic() + 30
        while not answers(client) and time.monotonic() < deadline:
            time.sleep(0.2)
        if not answers(client):
            pytest.skip(f"a second dockerd does not start: {(engine.folder / 'log').read_text()}")
        client.images.load(docker_client.images.get(tiny_image).save(named=True))
        yield engine, client
    finally:
        client.close()
        engine.stop()
        shutil.rmtree(engine.folder, ignore_errors=True)


@pytest.mark.docker
@pytest.mark.slow
def test_a_batch_outlives_a_restart_of_the_engine(engine, tiny_task, tiny_image):
    own, client = engine
    task = tiny_task.model_copy(update={"image": tiny_image})
    ended: list[str] = []
    two_ended = threading.Event()

    with DockerProvider(client, limits=SandboxLimits(memory_mb=256)) as provider:

        def episode(number: int) -> None:
            try:
                start = functools.partial(provider.start, task)
                with retry_infrastructure(start, what="start") as sandbox:
                    for _ in range(5):
                        time.sleep(0.1)
                        sandbox.exec("echo hi", timeout_s=20)
                ended.append("well")
            except SandboxError as error:
                ended.append(f"infrastructure: {error}")
            if len(ended) == 2:
                two_ended.set()

        with ThreadPoolExecutor(2) as pool:
            episodes = [pool.submit(episode, number) for number in range(10)]
            assert two_ended.wait(60)
            own.stop()
            time.sleep(1.0)
            own.start()
            for one in episodes:
                one.result(timeout=120)
        run_id = provider.run_id

    assert len(ended) == 10
    assert len([how for how in ended if how != "well"]) <= 2, ended  # those that were running
    assert client.api.containers(all=True, filters={"label": f"contextrl.run={run_id}"}) == []
