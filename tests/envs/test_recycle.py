"""A recycled container is as good as new, or it is not used again."""

import pytest

from contextrl.envs.docker import DockerProvider
from contextrl.envs.grading import DockerGrader

pytestmark = pytest.mark.docker

MISCHIEF = """
echo '#!/bin/sh\necho hooked' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit
git config core.fsmonitor /tmp/spy
echo 'raise SystemExit' > tiny.py; rm -f test_tiny.py; mkdir -p new/deep && touch new/deep/file
touch /tmp/note ~/.bashrc /dev/shm/note; ln -s /etc/passwd /tmp/link
mkdir /tmp/locked && touch /tmp/locked/in && chmod 000 /tmp/locked
(setsid sleep 600 >/dev/null 2>&1 &)
export LEFT=here; left() { :; }; alias left=ls; trap 'echo bye' TERM
exec 7</dev/null; umask 0; cd /
"""
LOOK = """
git status --porcelain --ignored; git config core.fsmonitor; ls .git/hooks | grep -v sample
ls -A /tmp /dev/shm ~; cat tiny.py
env | grep -v ^_= | sort; declare -F; alias; trap -p TERM; ls /proc/$$/fd; umask; pwd
for p in /proc/[0-9]*; do [ ! -O $p ] || tr '\\0' ' ' < $p/cmdline; done | grep '[s]leep'
"""


@pytest.fixture
def task(tiny_task, tiny_image):
    return tiny_task.model_copy(update={"image": tiny_image})


@pytest.fixture
def recycling(docker_client):
    with DockerProvider(docker_client, run_id="test-recycle", recycle=True) as provider:
        yield provider


def test_nothing_of_an_episode_is_there_in_the_next(recycling, task):
    with recycling.start(task) as first:
        fresh = first.exec(LOOK, timeout_s=20).output
        start_commit = first.start_commit
        first.exec(MISCHIEF, timeout_s=20)
        assert first.exec(LOOK, timeout_s=20).output != fresh
    with recycling.start(task) as second:
        assert second.sandbox_id == first.sandbox_id
        assert second.exec(LOOK, timeout_s=20).output == fresh
        assert second.start_commit == start_commit
        assert second.diff() == ""


def test_the_start_of_a_task_that_comes_back_is_not_made_again(recycling, task, monkeypatch):
    other = task.model_copy(update={"setup_patch": task.setup_patch.replace("a - b", "a * b")})
    with recycling.start(task) as first:
        fresh, start_commit = first.exec(LOOK, timeout_s=20).output, first.start_commit
        first.exec(MISCHIEF, timeout_s=20)
    recycling.start(task).close()
    with recycling.start(other) as between:
        assert "a * b" in between.read_file("/testbed/tiny.py").decode()
        between.exec(MISCHIEF, timeout_s=20)
    monkeypatch.setattr("contextrl.envs.sandbox_base.start_script", lambda task: "exit 1")
    with recycling.start(task) as again:
        assert again.sandbox_id == first.sandbox_id
        assert again.exec(LOOK, timeout_s=20).output == fresh
        assert again.start_commit == start_commit
        assert again.diff() == ""
        again.exec("sed -i 's/a - b/a + b/' tiny.py", timeout_s=20)
        fix = again.diff()
    assert DockerGrader(recycling).grade(task, fix).resolved


def test_a_container_that_cannot_be_cleaned_is_replaced(recycling, task):
    with recycling.start(task) as first:
        assert first.exec("ipcmk -M 1000", timeout_s=20).exit_code == 0
    with recycling.start(task) as second:
        assert second.sandbox_id != first.sandbox_id
        assert "0x" not in second.exec("ipcs -m", timeout_s=20).output


def test_two_at_once_never_share_a_container(recycling, task):
    with recycling.start(task) as one, recycling.start(task) as two:
        assert one.sandbox_id != two.sandbox_id


def test_closing_the_provider_removes_the_idle_ones(docker_client, task):
    with DockerProvider(docker_client, run_id="test-recycle-end", recycle=True) as provider:
        provider.start(task).close()
    left = docker_client.api.containers(all=True, filters={"label": "contextrl.run"})
    assert not [c for c in left if c["Labels"]["contextrl.run"] == "test-recycle-end"]
