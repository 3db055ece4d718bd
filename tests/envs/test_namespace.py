"""What only the backend without a daemon promises: isolation, limits, and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from contextrl.envs.control_groups import ControlGroup, remove_stale_groups
from contextrl.envs.docker import SandboxLimits
from contextrl.envs.errors import ImageError, SandboxError
from contextrl.envs.fifo import one_line
from contextrl.envs.grading import DockerGrader
from contextrl.envs.leases import new_folder, remove_stale_folders
from contextrl.envs.namespace import CONTROL_PREFIX, NamespaceProvider
from contextrl.envs.start_layers import StartLayers
from contextrl.envs.types import ExecResult, Limit
from contextrl.envs.unpacked import read_root, root_folder


@pytest.fixture
def task(tiny_task, tiny_image):
    return tiny_task.model_copy(update={"image": tiny_image})


@pytest.fixture
def sandbox(namespace_provider, task):
    with namespace_provider.start(task) as sandbox:
        yield sandbox


def run(sandbox, command: str, timeout_s: float = 30.0) -> ExecResult:
    return sandbox.exec(command, timeout_s=timeout_s)


@pytest.mark.docker
def test_nothing_is_granted_and_nothing_of_the_host_is_there(sandbox, tmp_path):
    status = run(sandbox, "cat /proc/self/status").output
    for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{field}:\t0000000000000000\n" in status
    assert "NoNewPrivs:\t1\n" in status
    assert run(sandbox, "id -un").output == "agent\n"
    assert (
        run(sandbox, "ls -A /sys/class/net 2>/dev/null; cat /proc/net/dev | wc -l").output == "3\n"
    )
    assert run(sandbox, "touch /opt/venv/x").exit_code != 0
    assert run(sandbox, "touch /run/contextrl/x; ls /run/contextrl/mounts").exit_code == 0
    assert not (sandbox._control / "x").exists()
    assert run(sandbox, f"ls {tmp_path}").exit_code != 0
    assert run(sandbox, "ls -d /proc/[0-9]* | wc -l").output.strip() in {"3", "4", "5", "6"}
    assert run(sandbox, "mount -t tmpfs x /tmp").exit_code != 0
    for address in ("1.1.1.1/53", "172.17.0.1/22", "127.0.0.1/22"):
        assert run(sandbox, f"echo x > /dev/tcp/{address}", 5).exit_code != 0


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0, reason="the danger is the host's root")
def test_an_image_that_runs_as_root_cannot_reach_the_kernels_switches(namespace_provider, task):
    roots = namespace_provider._roots
    files, root = read_root(roots, task.image)
    folder = root_folder(roots, "contextrl-test-as-root:1")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    subprocess.run(["cp", "-a", "--reflink=auto", files, folder / "files"], check=True)
    subprocess.run(["chown", "-R", "0:0", folder / "files/testbed"], check=True)
    record = root.model_copy(update={"uid": 0, "gid": 0})
    (folder / "root.json").write_text(record.model_dump_json())
    try:
        with namespace_provider.start(
            task.model_copy(update={"image": "contextrl-test-as-root:1"})
        ) as sandbox:
            assert run(sandbox, "id -u").output == "0\n"
            for switch in ("kernel/core_pattern", "kernel/hostname", "vm/swappiness"):
                same = f"cat /proc/sys/{switch} > /tmp/was; cat /tmp/was > /proc/sys/{switch}"
                assert "Read-only file system" in run(sandbox, same).output
            assert run(sandbox, "mount -t tmpfs x /mnt; mknod /tmp/disk b 8 0").exit_code != 0
    finally:
        shutil.rmtree(folder)


@pytest.mark.docker
def test_what_one_writes_another_does_not_see(namespace_provider, task, sandbox):
    run(sandbox, "echo mine > /tmp/file; rm tiny.py")
    with namespace_provider.start(task) as other:
        assert run(other, "cat /tmp/file; ls tiny.py").output.endswith("tiny.py\n")


START = (
    "git rev-parse HEAD; git diff-files; git rev-list --all --count; git fsck --full; "
    "stat -c '%A %U %n' $(find . -not -path './.git/objects/*' | sort); cat tiny.py"
)


@pytest.mark.docker
def test_a_task_that_comes_back_starts_as_it_did_and_sooner(namespace_provider, task):
    patch = "--- a/tiny.py\n+++ b/tiny.py\n@@ -1 +1,2 @@\n+# a setup patch\n"
    first_line = task_source(namespace_provider, task).splitlines()[0]
    patched = task.model_copy(update={"setup_patch": f"{patch} {first_line}\n"})
    said, sandboxes = [], []
    for _ in range(4):
        with namespace_provider.start(patched) as sandbox:
            said.append((sandbox.start_commit, run(sandbox, START).output))
            assert sandbox.diff() == ""
            # Nothing of this may be in the next one.
            run(sandbox, "echo '# mine' >> tiny.py; git rm -rq --cached .; rm -rf .git; echo > new")
            sandboxes.append(sandbox)
    for other in said[1:]:
        assert other == said[0]
    assert "# a setup patch" in said[0][1]
    assert [len(sandbox._layers) for sandbox in sandboxes] == [1, 1, 2, 2]
    layer = sandboxes[-1]._layers[0]
    assert layer.exists()
    namespace_provider._starts.close()
    assert not layer.exists()


def task_source(provider: NamespaceProvider, task) -> str:
    with provider.start(task) as sandbox:
        return sandbox.read_file(f"{task.workdir}/tiny.py").decode()


def test_a_layer_holds_links_and_deletions_and_follows_nothing(tmp_path, tiny_task):
    upper, secret = tmp_path / "upper", tmp_path / "secret"
    (upper / "folder").mkdir(parents=True)
    secret.mkdir()
    (secret / "key").write_text("of the host")
    (upper / "folder/file").write_text("x")
    (upper / "folder/file").chmod(0o755)
    (upper / "to-secret").symlink_to(secret)
    os.mknod(upper / "gone", stat.S_IFCHR)
    starts = StartLayers(f"{CONTROL_PREFIX}")
    for _ in range(2):
        assert starts.find(tiny_task) is None
        starts.keep(tiny_task, upper, "abc")
    layer = starts.find(tiny_task)
    assert layer is not None
    assert layer.commit == "abc"
    assert (layer.folder / "folder/file").stat().st_mode & 0o777 == 0o755
    assert (layer.folder / "to-secret").is_symlink()
    assert stat.S_ISCHR((layer.folder / "gone").lstat().st_mode)
    assert not list(layer.folder.rglob("key"))
    os.mkfifo(upper / "pipe")
    other = tiny_task.model_copy(update={"base_commit": "f" * 40})
    for _ in range(3):
        starts.keep(other, upper, "abc")
    assert starts.find(other) is None
    starts.close()
    assert not layer.folder.exists()


@pytest.mark.docker
def test_disk_and_memory_are_limited_and_the_sandbox_lives(sandbox):
    full = run(sandbox, "for n in 1 2 3; do head -c 30000000 /dev/zero > /tmp/$n; done")
    assert full.limit is Limit.DISK
    assert run(sandbox, "rm /tmp/?; echo fine > /tmp/x; cat /tmp/x").output == "fine\n"
    assert "MemoryError" in run(sandbox, "python3 -c 'bytearray(1 << 30)'").output


@pytest.fixture
def grouped(sandbox):
    """A sandbox with a control group."""
    if sandbox._group is None:
        pytest.skip("no control group can be made here")
    return sandbox


@pytest.mark.docker
def test_a_fork_bomb_harms_neither_neighbour_nor_its_own_sandbox(grouped, namespace_provider, task):
    with namespace_provider.start(task) as neighbour:
        bomb = run(grouped, "bomb() { bomb | bomb & }; bomb; sleep 20", 2)
        assert bomb.limit in {Limit.PROCESSES, Limit.TIME}
        assert run(neighbour, "/bin/echo alive").output == "alive\n"
        assert run(grouped, "/bin/echo alive").output.endswith("alive\n")
        assert grouped.diff() == ""


@pytest.mark.docker
def test_processes_share_their_sandboxs_memory_limit(namespace_provider, task, grouped):
    """512 MB and 64 MB of files: four processes of 200 MB each are too much together."""
    hold = "python3 -c 'import time; b = b\"x\" * (200 << 20); time.sleep(3)'"
    with namespace_provider.start(task) as neighbour:
        result = run(grouped, f"for n in 1 2 3 4; do {hold} & done; wait", 30)
        assert result.limit is Limit.MEMORY, result
        assert run(neighbour, "/bin/echo alive").output == "alive\n"
    assert run(grouped, "/bin/echo alive").output.endswith("alive\n")


@pytest.mark.docker
def test_without_a_control_group_a_bomb_is_over_when_its_sandbox_is_closed(
    namespace_provider, task, monkeypatch
):
    """While it lasts others of the same user may fail to fork: the limit counts them together."""
    monkeypatch.setattr(ControlGroup, "make", classmethod(lambda cls, **_: None))
    with namespace_provider.start(task) as sandbox, namespace_provider.start(task) as neighbour:
        with contextlib.suppress(SandboxError):
            run(sandbox, "bomb() { bomb | bomb & }; bomb", 1)
        sandbox.close()
        assert run(neighbour, "/bin/echo alive").output.endswith("alive\n")
        assert run(neighbour, "/bin/echo alive").output == "alive\n"


@pytest.mark.docker
def test_grading_works_without_a_daemon(namespace_provider, task):
    grader = DockerGrader(namespace_provider)
    assert grader.grade(task, task.gold_patch).resolved
    assert not grader.grade(task, "").resolved


@pytest.mark.docker
def test_a_killed_driver_leaves_neither_process_nor_mount(task, tmp_path, namespace_provider):
    (tmp_path / "task.json").write_text(task.model_dump_json())
    script = """if True:
        import sys, time
        from pathlib import Path
        from contextrl.envs.namespace import NamespaceProvider
        from contextrl.envs.types import Task
        provider = NamespaceProvider(Path(sys.argv[2]))
        sandbox = provider.start(Task.model_validate_json(open(sys.argv[1]).read()))
        sandbox.exec("sleep 4321.5 &", timeout_s=20)
        group = sandbox._group
        print(sandbox._control, *((group.memory, group.pids) if group else ()), flush=True)
        time.sleep(60)
    """
    roots = str(namespace_provider._roots)
    command = [sys.executable, "-c", script, str(tmp_path / "task.json"), roots]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        control, _, group = driver.stdout.readline().strip().partition(" ")
        assert "sleep 4321.5" in processes()
        driver.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while "4321.5" in processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "4321.5" not in processes()
    assert control not in Path("/proc/self/mountinfo").read_text()
    # Another process that starts a sandbox at this moment may be faster.
    remove_stale_folders(Path(tempfile.gettempdir()), CONTROL_PREFIX)
    assert not Path(control).exists()
    groups = {Path(folder) for folder in group.split()}
    remove_stale_groups()
    assert not any(folder.exists() for folder in groups)


def test_a_living_owner_and_another_host_keep_their_folders(tmp_path):
    mine = new_folder(CONTROL_PREFIX, tmp_path)
    host = mine.name.removeprefix(CONTROL_PREFIX).partition("-")[0]
    old, elsewhere = (
        tmp_path / f"{CONTROL_PREFIX}{name}-999999999-1-b" for name in (host, "0" * 8)
    )
    old.mkdir()
    elsewhere.mkdir()
    assert remove_stale_folders(tmp_path, CONTROL_PREFIX) == [old]
    assert mine.exists()
    assert elsewhere.exists()


@pytest.mark.docker
def test_what_is_missing_or_damaged_is_one_line(tmp_path, task, namespace_provider):
    provider = NamespaceProvider(tmp_path)
    with pytest.raises(ImageError, match="expected the unpacked image") as caught:
        provider.start(task)
    assert "\n" not in str(caught.value)
    folder = tmp_path / task.image.replace(":", "--")
    folder.mkdir()
    (folder / "root.json").write_text("{")
    with pytest.raises(ImageError, match="is damaged"):
        provider.start(task)
    with pytest.raises(ValueError, match="no network"):
        NamespaceProvider(tmp_path, limits=SandboxLimits(network=True))


@pytest.mark.parametrize(
    "word", ["a b", "it's", 'say "$HOME" `x` \\n', "two\nlines\r", "caf\u00e9"]
)
def test_any_command_is_one_line_that_bash_reads_back(word):
    line = one_line(["printf", "%s", word])
    assert "\n" not in line
    assert "\r" not in line
    command = ["bash", "-c", 'eval "$1"', "bash", line]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.decode() == word


def processes() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
