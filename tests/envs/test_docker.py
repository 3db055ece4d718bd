"""What only the Docker backend promises: isolation, limits, labels, and an end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from contextrl.envs.cleanup import owner_alive, owner_label, reap, reap_until_quiet
from contextrl.envs.docker import DockerProvider, SandboxLimits
from contextrl.envs.engine import connect, read_whole
from contextrl.envs.errors import EngineUnavailableError, ImageError, SandboxError
from contextrl.envs.types import ExecResult, Limit


@pytest.fixture
def task(tiny_task, tiny_image):
    return tiny_task.model_copy(update={"image": tiny_image})


@pytest.fixture
def sandbox(docker_provider, task):
    with docker_provider.start(task) as sandbox:
        yield sandbox


def run(sandbox, command: str, timeout_s: float = 30.0) -> ExecResult:
    return sandbox.exec(command, timeout_s=timeout_s)


def containers_of(client, run_id: str) -> list[str]:
    found = client.api.containers(all=True, filters={"label": f"contextrl.run={run_id}"})
    return [container["Id"][:12] for container in found]


@pytest.mark.docker
def test_nothing_is_granted(sandbox):
    status = run(sandbox, "cat /proc/self/status").output
    for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{field}:\t0000000000000000\n" in status
    assert "NoNewPrivs:\t1\n" in status
    assert run(sandbox, "id -un").output == "agent\n"
    assert run(sandbox, "ls -A /sys/class/net").output == "lo\n"
    assert run(sandbox, "ls /var/run/docker.sock").exit_code != 0
    assert run(sandbox, "touch /opt/venv/x").exit_code != 0


CONNECT = """python3 - <<'EOF'
import socket
socket.setdefaulttimeout(2)
try:
    socket.create_connection(({host!r}, {port}))
    print("reached")
except OSError as error:
    print(error)
EOF"""


@pytest.fixture
def host_listener(docker_client):
    """A port that listens on the host's end of Docker's bridge, the gateway of a container."""
    networks = docker_client.api.inspect_network("bridge")["IPAM"]["Config"]
    with socket.socket() as server:
        try:
            server.bind((networks[0].get("Gateway", "172.17.0.1"), 0))
        except OSError as error:
            pytest.skip(f"no bridge on this host: {error}")
        server.listen()
        yield server.getsockname()


@pytest.mark.docker
def test_neither_host_nor_network_can_be_reached(docker_client, sandbox, task, host_listener):
    gateway, port = host_listener
    for host, number in ((gateway, port), ("127.0.0.1", port), ("1.1.1.1", 53), (gateway, 22)):
        assert run(sandbox, CONNECT.format(host=host, port=number)).output.strip() != "reached"
    resolve = "python3 -c 'import socket; socket.gethostbyname(\"pypi.org\")'"
    assert "gaierror" in run(sandbox, resolve).output
    assert run(sandbox, "ls /var/run/docker.sock /run/docker.sock").exit_code != 0
    found = "find / -xdev -type s 2>/dev/null; ls /dev | grep -E 'sd|nvme|vd|mem|kvm'"
    assert run(sandbox, found).output == ""

    # The same from a sandbox that was given a network: the listener is there.
    with (
        DockerProvider(docker_client, limits=SandboxLimits(network=True)) as provider,
        provider.start(task) as connected,
    ):
        assert run(connected, CONNECT.format(host=gateway, port=port)).output == "reached\n"


@pytest.mark.docker
@pytest.mark.parametrize(
    "fill",
    [
        "head -c 300000000 /dev/zero > /var/tmp/one",
        "for n in {1..40}; do head -c 20000000 /dev/zero > /var/tmp/$n; done; sleep 20",
    ],
    ids=["one file", "many files"],
)
def test_filling_the_disk_stops_the_command_and_the_neighbour_lives(docker_client, task, fill):
    limits = SandboxLimits(disk_mb=200)
    with (
        DockerProvider(docker_client, limits=limits) as provider,
        provider.start(task) as sandbox,
        provider.start(task) as neighbour,
    ):
        run(sandbox, "cd tests; echo work > kept")
        run(neighbour, "state=kept")
        started = time.monotonic()
        result = run(sandbox, fill, 60)
        assert result.limit is Limit.DISK
        assert time.monotonic() - started < 20
        assert run(sandbox, "pwd; cat kept; rm /var/tmp/*").output == "/testbed/tests\nwork\n"
        assert run(sandbox, "echo > /var/tmp/more && echo fine").output == "fine\n"
        assert run(neighbour, "echo $state").output == "kept\n"


@pytest.mark.docker
def test_shared_memory_is_limited(sandbox):
    result = run(sandbox, "head -c 200000000 /dev/zero > /dev/shm/x; rm /dev/shm/x")
    assert "No space left" in result.output
    assert run(sandbox, "echo fine").output == "fine\n"


@pytest.mark.docker
def test_too_much_memory_kills_the_command_only(sandbox):
    run(sandbox, "cd tests; state=kept")
    result = run(sandbox, "python3 -c 'x = bytearray(1 << 30)'")
    assert (result.exit_code, result.limit) == (137, Limit.MEMORY)
    assert run(sandbox, "pwd; echo $state; (exit 137)").limit is None
    assert run(sandbox, "pwd; echo $state").output == "/testbed/tests\nkept\n"


@pytest.mark.docker
def test_too_many_processes_fail_inside_and_the_work_is_kept(sandbox):
    run(sandbox, "echo work > work.txt")
    bombed = run(sandbox, "bomb() { bomb | bomb & }; bomb; sleep 1", 2)
    # The bomb may be over by then: it meets the limit itself, or the commands after it do.
    reached = {bombed.limit, *(run(sandbox, "true | true", 2).limit for _ in range(5))}
    assert Limit.PROCESSES in reached
    assert "work.txt" in sandbox.diff()
    assert run(sandbox, "cat work.txt").output.endswith("work\n")


@pytest.mark.docker
def test_killing_every_process_does_not_end_the_sandbox(sandbox):
    run(sandbox, "cd tests; kill -9 -1")
    assert run(sandbox, "pwd").output.endswith("/testbed/tests\n")


@pytest.mark.docker
def test_a_stopped_container_starts_again_with_its_files(docker_client, sandbox):
    run(sandbox, "cd tests; echo kept > /tmp/file")
    docker_client.api.kill(sandbox.sandbox_id)
    time.sleep(0.2)
    run(sandbox, "true")
    assert run(sandbox, "pwd; cat /tmp/file").output == "/testbed/tests\nkept\n"


@pytest.mark.docker
def test_a_removed_container_is_a_sandbox_error(docker_client, docker_provider, task):
    with docker_provider.start(task) as sandbox:
        docker_client.api.remove_container(sandbox.sandbox_id, force=True)
        with contextlib.suppress(SandboxError):
            run(sandbox, "true")  # the shell ended: at the latest a new one finds out why
        with pytest.raises(SandboxError) as caught:
            run(sandbox, "true")
        assert "\n" not in str(caught.value)
        with pytest.raises(SandboxError):
            sandbox.read_file("/testbed/tiny.py")


@pytest.mark.docker
def test_the_agent_cannot_write_what_it_does_not_own(sandbox):
    with pytest.raises(PermissionError):
        sandbox.write_file("/opt/venv/bin/python", b"")
    with pytest.raises(ValueError, match="absolute"):
        sandbox.write_file("relative", b"")


@pytest.mark.docker
def test_a_file_beyond_the_limit_is_refused(docker_client, task):
    limits = SandboxLimits(max_file_bytes=1000)
    with (
        DockerProvider(docker_client, limits=limits) as provider,
        provider.start(task) as sandbox,
    ):
        run(sandbox, "head -c 5000000 /dev/zero > big")
        with pytest.raises(ValueError, match="larger than 1000"):
            sandbox.read_file("/testbed/big")


@pytest.mark.docker
def test_many_at_once_are_apart_and_none_is_left(docker_client, task):
    with DockerProvider(docker_client) as provider, ThreadPoolExecutor(16) as pool:

        def episode(number: int) -> str:
            with provider.start(task) as sandbox:
                run(sandbox, f"echo {number} > /tmp/number")
                return run(sandbox, "cat /tmp/number").output.strip()

        assert list(pool.map(episode, range(16))) == [str(number) for number in range(16)]
        assert containers_of(docker_client, provider.run_id) == []


@pytest.mark.docker
def test_a_warm_pool_is_used_once_and_removed_at_the_end(docker_client, task):
    provider = DockerProvider(docker_client)
    provider.prewarm(task.image, 2)
    warm = set(containers_of(docker_client, provider.run_id))
    assert len(warm) == 2
    one, two = provider.start(task), provider.start(task)
    assert {one.sandbox_id, two.sandbox_id} == warm
    assert run(one, "git log --format=%s").output == "Initial commit\n"
    with provider.start(task) as three:
        assert three.sandbox_id not in warm
    provider.prewarm(task.image, 1)
    provider.close()
    provider.close()
    assert containers_of(docker_client, provider.run_id) == []
    with pytest.raises(SandboxError, match="closed"):
        provider.start(task)


@pytest.mark.docker
def test_a_failed_start_leaves_no_container(docker_client, task):
    with DockerProvider(docker_client) as provider:
        with pytest.raises(SandboxError, match="task tiny-1"):
            provider.start(task.model_copy(update={"workdir": "/nowhere"}))
        assert containers_of(docker_client, provider.run_id) == []


@pytest.mark.docker
def test_a_missing_image_says_what_to_do(docker_provider, task):
    with pytest.raises(ImageError, match=r"image nobody/none:1 not found locally; .*--repos"):
        docker_provider.start(task.model_copy(update={"image": "nobody/none:1"}))


@pytest.mark.docker
def test_history_newer_than_the_base_commit_cannot_be_named(docker_provider, task):
    history = """
        git tag future; git branch other; git stash list; git remote add origin https://x/y
        git update-ref refs/remotes/origin/main HEAD; git notes add -m secret
    """
    kept = task.model_copy(update={"setup_patch": ""})
    with docker_provider.start(kept) as sandbox:
        # The start script again, over what an image could have carried.
        from contextrl.envs.repository import start_script

        run(sandbox, history)
        head = run(sandbox, "git rev-parse HEAD").output.strip()
        at_head = kept.model_copy(update={"base_commit": head})
        assert run(sandbox, f"({start_script(at_head)})").output.strip() == head
        assert run(sandbox, "git for-each-ref --format='%(refname)'").output == "refs/heads/main\n"
        assert run(sandbox, "git remote; git reflog; git tag; git stash list").output == ""

        run(sandbox, "for n in 1 2; do git commit -q --allow-empty -m later; done")
        result = run(sandbox, f"({start_script(at_head)})")
        assert result.exit_code == 1
        assert f"expected {head}" in result.output


@pytest.mark.docker
def test_a_killed_driver_leaves_containers_that_clean_removes(docker_client, task, tmp_path):
    (tmp_path / "task.json").write_text(task.model_dump_json())
    script = """if True:
        import sys, time
        from contextrl.envs.docker import DockerProvider
        from contextrl.envs.types import Task
        provider = DockerProvider(run_id="test-killed-driver")
        sandbox = provider.start(Task.model_validate_json(open(sys.argv[1]).read()))
        print(sandbox.sandbox_id, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", script, str(tmp_path / "task.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        container = driver.stdout.readline().strip()
        assert container not in {one.container for one in reap(docker_client)}
        driver.kill()
    removed = {one.container: one for one in reap(docker_client)}
    assert removed[container].run == "test-killed-driver"
    assert f"process {driver.pid}, is gone" in removed[container].reason
    assert containers_of(docker_client, "test-killed-driver") == []


@pytest.mark.docker
def test_what_a_stopped_run_had_asked_for_is_removed_though_it_comes_late(docker_client, task):
    run_id = "test-late-containers"
    provider = DockerProvider(docker_client, run_id=run_id)

    def ask() -> None:
        with contextlib.suppress(SandboxError):  # it is removed before its shell is up
            provider.start(task)

    late = threading.Timer(1.0, ask)
    provider.start(task)
    late.start()
    removed = reap_until_quiet(docker_client, run=run_id, quiet_s=3.0)
    late.join()
    assert len(removed) == 2
    assert containers_of(docker_client, run_id) == []


@pytest.mark.docker
def test_leaving_by_an_exception_or_sigint_leaves_no_container(docker_client, task, tmp_path):
    (tmp_path / "task.json").write_text(task.model_dump_json())
    script = """if True:
        import sys, time
        from contextrl.envs.docker import DockerProvider
        from contextrl.envs.types import Task
        provider = DockerProvider(run_id="test-interrupted")
        sandbox = provider.start(Task.model_validate_json(open(sys.argv[1]).read()))
        print("started", flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", script, str(tmp_path / "task.json")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "started\n"
        driver.send_signal(signal.SIGINT)
        assert driver.wait(20) != 0
    assert containers_of(docker_client, "test-interrupted") == []


@pytest.mark.docker
def test_a_passed_deadline_ends_a_container_of_a_living_owner(docker_client, task):
    limits = SandboxLimits(lease_s=1.0)
    with DockerProvider(docker_client, limits=limits) as provider:
        sandbox = provider.start(task)
        time.sleep(1.5)
        reasons = {one.container: one.reason for one in reap(docker_client)}
        assert reasons[sandbox.sandbox_id] == "its deadline passed"


def test_an_owner_is_told_from_a_later_process_with_its_number():
    label = owner_label(os.getpid())
    assert owner_alive(label)
    assert not owner_alive(f"{os.getpid()}:1")
    assert not owner_alive("999999999:1")
    assert not owner_alive("")


def test_no_engine_is_one_line_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailableError, match="expected a running Docker engine") as caught:
        connect()
    assert "\n" not in str(caught.value)


def test_limits_are_checked():
    with pytest.raises(ValueError, match=r"sandbox\.pids must be positive, got 0"):
        SandboxLimits(pids=0)


class Frames:
    """What an engine sends of one process, which has ended with 0."""

    def __init__(self, *frames):
        self.frames = list(frames)

    def receive_frame(self, timeout_s):
        return self.frames.pop(0)

    def exit_code(self):
        return 0


def test_output_that_comes_late_is_waited_for_and_what_is_lost_is_known():
    late = Frames(None, (1, b"late"), (1, b"END"), (0, b""))
    assert read_whole(late, b"END", 10, timeout_s=5) == (0, b"late", b"")
    assert read_whole(Frames((1, b"la"), (0, b"")), b"END", 10, timeout_s=5) is None
    long = Frames((1, b"x" * 50), (1, b"END"), (0, b""))
    assert read_whole(long, b"END", 10, timeout_s=5) == (0, b"x" * 11, b"")


@pytest.mark.docker
def test_a_container_whose_creation_got_no_answer_is_removed_in_the_end(
    docker_client, task, monkeypatch
):
    """As when the engine stops between making it and saying so."""
    create, made = docker_client.api.create_container, []

    def first_without_answer(*args, **settings):
        made.append(create(*args, **settings))
        if len(made) == 1:
            raise requests.exceptions.ConnectionError("Remote end closed connection")
        return made[-1]

    with DockerProvider(docker_client, limits=SandboxLimits(memory_mb=256)) as provider:
        monkeypatch.setattr(docker_client.api, "create_container", first_without_answer)
        with provider.start(task) as sandbox:
            assert run(sandbox, "echo hi").output == "hi\n"
        unanswered = made[0]["Id"][:12]
        assert containers_of(docker_client, provider.run_id) == [unanswered]
    assert containers_of(docker_client, provider.run_id) == []
