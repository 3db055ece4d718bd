"""What a diff earns, in real containers; and the cache in front."""

from __future__ import annotations

import threading

import pytest

from contextrl.envs.errors import SandboxError, TaskSetupError
from contextrl.envs.fake import FakeProvider
from contextrl.envs.grading import CachingGrader, DockerGrader, listed_files
from contextrl.envs.protected import is_protected, paths_to_restore
from contextrl.envs.types import Outcome, Reward, Verdict

ADD = "tests/test_tiny.py::test_add"


@pytest.fixture
def task(tiny_task, tiny_image):
    return tiny_task.model_copy(update={"image": tiny_image})


@pytest.fixture
def grader(docker_provider):
    return DockerGrader(docker_provider)


@pytest.fixture
def diff_of(docker_provider, task):
    """The diff of an agent that ran these commands."""

    def make(*commands: str) -> str:
        with docker_provider.start(task) as sandbox:
            for command in commands:
                assert sandbox.exec(command, timeout_s=20).exit_code == 0
            return sandbox.diff()

    return make


def new_file(path: str, *lines: str) -> str:
    body = "".join(f"+{line}\n" for line in lines)
    return f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1,{len(lines)} @@\n{body}"


@pytest.mark.docker
def test_gold_resolves_and_empty_does_not(grader, task):
    gold = grader.grade(task, task.gold_patch)
    assert gold.verdict is Verdict.RESOLVED
    assert gold.tests == {ADD: "passed", "tests/test_tiny.py::TestDouble::test_small": "passed"}
    assert gold.score == 1.0
    assert 0 < gold.test_seconds < gold.seconds

    empty = grader.grade(task, "")
    assert empty.verdict is Verdict.UNRESOLVED
    assert empty.tests[ADD] is Outcome.FAILED
    assert empty.score == 0.0


@pytest.mark.docker
def test_awkward_test_ids_are_found(grader, task):
    texts = ["a b", "x[1]", "p::q", "a/b.py", "<&>", "plain"]
    tests = tuple(f"tests/test_tiny.py::test_text[{text}]" for text in texts)
    inner = "tests/test_tiny.py::TestDouble::TestInner::test_zero"
    task = task.model_copy(update={"fail_to_pass": (ADD,), "pass_to_pass": (*tests, inner)})
    assert grader.grade(task, task.gold_patch).resolved


@pytest.mark.docker
@pytest.mark.parametrize(
    "diff",
    [
        "garbage",
        "--- a/none.py\n+++ b/none.py\n@@ -1 +1 @@\n-x\n+y\n",
        new_file("../outside.py", "x"),
        new_file(".git/hooks/x", "x"),
    ],
)
def test_a_diff_that_does_not_apply_is_rejected(grader, task, diff):
    reward = grader.grade(task, diff)
    assert reward.verdict is Verdict.PATCH_REJECTED
    assert reward.detail


@pytest.mark.docker
def test_a_diff_with_binary_renamed_and_executable_files_is_graded(grader, task, diff_of):
    diff = diff_of(
        "git mv setup.cfg other.cfg",
        "printf '\\0\\1\\377' > blob; chmod +x blob; ln -s blob link; printf '\\351' > latin",
        "sed -i 's/a - b/a + b/' tiny.py",
    )
    assert grader.grade(task, diff).resolved


CHEATS = {
    "the tests": "sed -i 's/== 3/== -1/' tests/test_tiny.py",
    "deleted tests": "rm -r tests",
    "conftest": "echo 'def pytest_runtest_call(item): item.obj = lambda: None' > conftest.py",
    "deep conftest": "echo 'collect_ignore = [\"test_tiny.py\"]' > tests/conftest.py",
    "settings": "printf '[pytest]\\naddopts = -k small\\n' > pytest.ini",
    "a module named pytest": "echo 'import sys; sys.exit(0)' > pytest.py",
    "a package named _pytest": "mkdir _pytest; echo 1 > _pytest/__init__.py",
    "sitecustomize": "echo 'import os; os._exit(0)' > sitecustomize.py",
    "a pth file": "echo 'import os' > x.pth",
    "tests as a link": "rm -r tests; ln -s /tmp tests",
}


@pytest.mark.docker
@pytest.mark.parametrize("cheat", CHEATS)
def test_changing_how_tests_run_does_not_help_and_does_not_hurt(grader, task, diff_of, cheat):
    assert grader.grade(task, diff_of(CHEATS[cheat])).verdict is Verdict.UNRESOLVED
    honest_too = diff_of(CHEATS[cheat], "sed -i 's/a - b/a + b/' tiny.py")
    assert grader.grade(task, honest_too).resolved


@pytest.mark.docker
def test_an_early_exit_is_no_report(grader, task, diff_of):
    reward = grader.grade(task, diff_of("echo 'import os; os._exit(0)' >> tiny.py"))
    assert reward.verdict is Verdict.NO_REPORT
    printed = 'print("1 passed"); import os; os._exit(0)'
    assert not grader.grade(task, diff_of(f"echo '{printed}' >> tiny.py")).resolved


@pytest.mark.docker
def test_tests_that_never_end_are_a_timeout(grader, task, diff_of):
    task = task.model_copy(update={"test_timeout_s": 1.5})
    reward = grader.grade(task, diff_of("echo 'while True: pass' >> tiny.py"))
    assert reward.verdict is Verdict.TIMEOUT
    assert reward.seconds < 20


@pytest.mark.docker
def test_hidden_tests_are_added_and_win_over_the_agents(grader, task):
    hidden = "tests/test_hidden.py"
    task = task.model_copy(
        update={
            "test_patch": new_file(
                hidden,
                "from tiny import add",
                "",
                "",
                "def test_hidden():",
                "    assert add(2, 2) == 4",
            ),
            "fail_to_pass": (f"{hidden}::test_hidden",),
        }
    )
    assert grader.grade(task, task.gold_patch).resolved
    forged = new_file(hidden, "def test_hidden():", "    pass")
    assert grader.grade(task, forged).verdict is Verdict.UNRESOLVED


@pytest.mark.docker
def test_a_broken_task_is_no_reward(grader, task):
    broken = task.model_copy(update={"test_patch": "--- a/no\n+++ b/no\n@@ -1 +1 @@\n-x\n+y\n"})
    with pytest.raises(TaskSetupError, match="test_patch does not apply"):
        grader.grade(broken, "")


def test_grading_needs_no_docker_where_the_sandbox_is_another(tiny_task, tiny_files):
    grader = DockerGrader(FakeProvider(tiny_files))
    assert grader.grade(tiny_task, tiny_task.gold_patch).resolved
    assert not grader.grade(tiny_task, "").resolved


def test_ids_that_pytest_cannot_run_are_a_setup_error(tiny_task):
    with pytest.raises(TaskSetupError, match="expected pytest ids"):
        listed_files(
            tiny_task.model_copy(
                update={"fail_to_pass": ("test_x (app.Case)",), "pass_to_pass": ()}
            )
        )


def test_paths_that_decide_how_tests_run():
    for path in (
        "conftest.py",
        "a/conftest.py",
        "setup.cfg",
        "pyproject.toml",
        "tests/helper.py",
        "src/test_a.py",
        "a_test.py",
        "x.pth",
        "pytest/__init__.py",
        "_pytest.py",
        "__pycache__/test_a.cpython-311-pytest-9.2.0.pyc",
        "src/app.pyc",
        "checks/test_a/__init__.py",
        "test_a.cpython-311-x86_64-linux-gnu.so",
        "conftest/__init__.py",
    ):
        assert is_protected(path), path
    assert paths_to_restore(
        ["app/checks.py", "app/checks/__init__.py", "app/checks.so", "app/checks2.py"],
        allowed=["app/checks.py"],
        always=["app/checks.py"],
    ) == ("app/checks.py", "app/checks/__init__.py", "app/checks.so")
    for path in ("src/testing.py", "contest.py", "latest/a.py", "setup.py", "docs/conf.py"):
        assert not is_protected(path), path


class CountingGrader:
    def __init__(self, *results: Reward | Exception) -> None:
        self.results = list(results)
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()

    def grade(self, task, diff):
        self.calls += 1
        self.gate.wait(5)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


RESOLVED = Reward(verdict=Verdict.RESOLVED)


def test_the_cache_grades_a_diff_once_even_when_asked_at_once(tiny_task):
    inner = CountingGrader(RESOLVED)
    inner.gate.clear()
    grader = CachingGrader(inner)
    rewards = []
    threads = [
        threading.Thread(target=lambda: rewards.append(grader.grade(tiny_task, "d")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    inner.gate.set()
    for thread in threads:
        thread.join(5)
    assert rewards == [RESOLVED] * 8
    assert (inner.calls, grader.hits, grader.misses) == (1, 7, 1)


def test_the_cache_tells_diffs_and_tasks_apart(tiny_task):
    inner = CountingGrader(RESOLVED, RESOLVED, RESOLVED)
    grader = CachingGrader(inner)
    grader.grade(tiny_task, "one")
    grader.grade(tiny_task, "two")
    grader.grade(tiny_task.model_copy(update={"test_timeout_s": 1.0}), "one")
    assert inner.calls == 3


def test_the_cache_forgets_failures_of_the_infrastructure_and_timeouts(tiny_task):
    timeout = Reward(verdict=Verdict.TIMEOUT)
    inner = CountingGrader(SandboxError("daemon gone"), timeout, RESOLVED)
    grader = CachingGrader(inner)
    with pytest.raises(SandboxError):
        grader.grade(tiny_task, "d")
    assert grader.grade(tiny_task, "d") == timeout
    assert grader.grade(tiny_task, "d") == RESOLVED
