"""A repository with its future in every hiding place, and what is left of it after the start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from contextrl.envs.repository import start_script

HIDE = r"""
set -e
git init -q -b main upstream && cd upstream
git config user.name a && git config user.email a@localhost
echo base > file && git add file && git commit -q -m base
base=$(git rev-parse HEAD)
future() {
  git checkout -q --detach "$base"; echo "FUTURE $1" > file; git commit -q -am "FUTURE $1"
}
future branch; git branch other
future tag; git tag -a v2 -m 'FUTURE annotated'
future note; git notes add -m 'FUTURE note' "$base"
future reflog
future packed; git branch packed; git repack -a -d -q; git branch -q -D packed
future kept; git branch kept; git repack -a -d -q; for p in .git/objects/pack/*.pack; do
  touch "${p%.pack}.keep"; done
future remote; git update-ref refs/remotes/origin/main HEAD; git remote add origin https://x/y
future replace; git replace "$base" HEAD
git --no-replace-objects checkout -q main; git --no-replace-objects reset -q --hard "$base"
git replace -d "$base" >/dev/null; git update-ref refs/replace/"$base" other
future orig; git rev-parse HEAD > .git/ORIG_HEAD; git rev-parse HEAD > .git/FETCH_HEAD
git --no-replace-objects checkout -q -f main; git --no-replace-objects reset -q --hard "$base"
echo 'FUTURE stash' > file; git --no-replace-objects stash -q
git --no-replace-objects reset -q --hard "$base"
git worktree add -q ../tree other
echo 'FUTURE blob' | git hash-object -w --stdin >/dev/null
cd .. && git clone -q --shared upstream borrowed
"""
EVERYTHING = (
    "git cat-file --batch-all-objects --batch --unordered; git log --all -p; git reflog --all; "
    "git stash list; git notes list; git tag; git branch -a; cat .git/packed-refs; git fsck"
)


def bash(script: str, folder: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": f"{path}:/usr/bin:/bin",
        "HOME": str(folder),
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "user.name",
        "GIT_CONFIG_VALUE_0": "agent",
        "GIT_CONFIG_KEY_1": "user.email",
        "GIT_CONFIG_VALUE_1": "agent@localhost",
    }
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.fixture
def leaky(tmp_path):
    done = bash(HIDE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert bash(EVERYTHING, tmp_path / "upstream").stdout.count("FUTURE") > 20
    return tmp_path


def start(tiny_task, folder: Path, setup_patch: str = "", path: str = ""):
    base = bash("git rev-parse refs/heads/main", folder).stdout.strip()
    task = tiny_task.model_copy(
        update={"workdir": str(folder), "base_commit": base, "setup_patch": setup_patch}
    )
    return bash(start_script(task), folder, path), base


@pytest.mark.parametrize("name", ["upstream", "borrowed"])
def test_no_hiding_place_keeps_the_future(tiny_task, leaky, name):
    folder = leaky / name
    done, base = start(tiny_task, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == base
    assert "FUTURE" not in bash(EVERYTHING, folder).stdout
    assert bash("git status --porcelain; git cat-file -p HEAD:file", folder).stdout == "base\n"


def test_a_task_with_a_setup_patch_is_rooted_anew(tiny_task, leaky):
    patch = "--- a/file\n+++ b/file\n@@ -1 +1 @@\n-base\n+bug\n"
    folder = leaky / "upstream"
    done, _ = start(tiny_task, folder, patch)
    assert done.returncode == 0, done.stdout + done.stderr
    assert bash("git rev-list --all --count; cat file", folder).stdout == "1\nbug\n"
    found = bash(EVERYTHING, folder).stdout
    assert "FUTURE" not in found
    assert "\nbase\n" not in found


def test_a_future_that_cannot_be_removed_fails_the_start(tiny_task, leaky, tmp_path):
    shim = tmp_path / "bin" / "git"
    shim.parent.mkdir()
    skip = 'case " $* " in *" repack "*|*" prune "*) exit 0;; esac'
    shim.write_text(f'#!/bin/sh\n{skip}\nexec /usr/bin/git "$@"\n')
    shim.chmod(0o755)
    done, _ = start(tiny_task, leaky / "upstream", path=str(shim.parent))
    assert done.returncode == 1
    assert "the repository still holds" in done.stdout
