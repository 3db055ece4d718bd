"""Forgeries, run for real: none earns a reward, and none costs an honest fix its reward.

Each file of `attacks/` is one. A .py file is appended to the module under test, a .sh file runs in
the agent's shell; both before its diff is taken. `CONTEXTRL_ATTACK_REPEATS` runs each more often.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contextrl.envs.grading import DockerGrader
from contextrl.envs.types import Verdict

ATTACKS = sorted(
    path
    for path in Path(__file__).with_name("attacks").iterdir()
    if path.suffix in {".py", ".sh"} and path.stem != "gold_from_history"
)
FILES_ONLY = [path for path in ATTACKS if path.suffix == ".sh" and path.stem != "shadowed_stdlib"]
REPEATS = int(os.environ.get("CONTEXTRL_ATTACK_REPEATS", "1"))
TIMEOUT_S = 10.0
"""Four of the attacks end this way, the others in a second."""
FIX = "sed -i 's/a - b/a + b/' tiny.py"

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def task(tiny_task, tiny_image):
    return tiny_task.model_copy(update={"image": tiny_image, "test_timeout_s": TIMEOUT_S})


@pytest.fixture(scope="module")
def agent(docker_provider, task):
    """One sandbox in which all attacks are written, each from a clean tree."""
    with docker_provider.start(task) as sandbox:
        yield sandbox


def diff_of(agent, attack: Path, *commands: str) -> str:
    clean = "cd /testbed; git reset -q --hard; git clean -qfdx; git config --unset core.hooksPath"
    agent.exec(clean, timeout_s=20)
    for command in commands:
        assert agent.exec(command, timeout_s=20).exit_code == 0
    if attack.suffix == ".sh":
        agent.exec(f"( {attack.read_text()}\n)", timeout_s=20)
    else:
        source = agent.read_file("/testbed/tiny.py") + b"\n\n" + attack.read_bytes()
        agent.write_file("/testbed/tiny.py", source)
    return agent.diff()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda path: path.stem)
def test_no_forgery_earns_a_reward(docker_provider, agent, task, attack):
    diff = diff_of(agent, attack)
    assert diff
    for _ in range(REPEATS):
        reward = DockerGrader(docker_provider).grade(task, diff)
        print(attack.stem, reward.verdict, reward.detail)
        assert reward.score == 0.0


@pytest.mark.parametrize("attack", FILES_ONLY, ids=lambda path: path.stem)
def test_what_grading_restores_costs_an_honest_fix_nothing(docker_provider, agent, task, attack):
    diff = diff_of(agent, attack, FIX)
    reward = DockerGrader(docker_provider).grade(task, diff)
    assert reward.verdict is Verdict.RESOLVED, reward


def test_the_fix_cannot_be_found_where_the_agent_works(docker_provider, task):
    attack = Path(__file__).with_name("attacks") / "gold_from_history.sh"
    with docker_provider.start(task) as agent:  # fresh: other attacks leave objects in git
        assert diff_of(agent, attack) == ""


def test_the_reference_fix_earns_it(docker_provider, task):
    assert DockerGrader(docker_provider).grade(task, task.gold_patch).score == 1.0
