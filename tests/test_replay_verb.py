"""`contextrl replay --check`: exit codes, and one line per divergence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contextrl.agents.prompting import COMPACT
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy
from contextrl.agents.store import TRAJECTORIES, RunStore
from contextrl.agents.types import Limits
from contextrl.envs.tasks import write_tasks


def contextrl(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "contextrl.scripts.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def recorded(tiny_task, tiny_image, docker_provider, tmp_path) -> tuple[Path, Path]:
    """A run of one trajectory, and its task file."""
    task = tiny_task.model_copy(update={"image": tiny_image})
    commands = ["cat tiny.py", "mktemp", "sed -i 's/a - b/a + b/' tiny.py", COMPACT.submit_command]
    policy = ScriptedPolicy([COMPACT.render_reply(each, thought="") for each in commands])
    run, tasks = tmp_path / "run", tmp_path / "tasks.jsonl"
    write_tasks(tasks, [task])
    with RunStore.open(run, {}) as store:
        store.append(rollout(task, docker_provider, policy, COMPACT, Limits()))
        store.finish()
    return run, tasks


@pytest.mark.docker
def test_check_says_0_reproduced_1_diverged_2_not_run(recorded):
    run, tasks = recorded
    done = contextrl("replay", "--check", run, "--tasks", tasks)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 reproduced, 0 diverged, 0 not run" in done.stdout
    assert "3 of 3 steps reproduced (100.0%): exact 2, normalised 1" in done.stdout

    done = contextrl("replay", "--check", run)
    assert done.returncode == 2
    assert "pass the run's task file with --tasks" in done.stdout

    file = run / TRAJECTORIES
    file.write_text(file.read_text().replace("return a - b", "return a * b"))
    done = contextrl("replay", "--check", file, "--tasks", tasks)
    assert done.returncode == 1
    assert "DIVERGED  tiny-1/rollout-0/0 at step 1: output" in done.stdout

    done = contextrl("replay", "--check", file, "--tasks", tasks, "--json")
    (report,) = json.loads(done.stdout)["reports"]
    assert report["steps"][0]["result"] == "diverged"


def test_check_of_nothing_is_2_and_one_line(tmp_path):
    done = contextrl("replay", "--check", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "found none" in done.stderr
    (tmp_path / TRAJECTORIES).write_text("{}\n")
    done = contextrl("replay", "--check", tmp_path)
    assert done.returncode == 2
    assert "not a trajectory" in done.stderr
