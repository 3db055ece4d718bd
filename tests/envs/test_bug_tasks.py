"""Bugs without an issue or lists of tests become tasks that hold, or a reason why they do not."""

from __future__ import annotations

import difflib
import gzip
import json
from pathlib import Path

import pytest

from contextrl.envs import bug_tasks
from contextrl.envs.bug_folder import build_bug_folder, mixed
from contextrl.envs.bug_issue import bug_issue, changed_functions
from contextrl.envs.bug_rows import BugRow, bug_from_row, read_bugs
from contextrl.envs.bug_tasks import Baseline, BugBench, BugStage, stages, task_of
from contextrl.envs.errors import ImageError, MutationError, TaskRowError
from contextrl.envs.grading import DockerGrader
from contextrl.envs.recipe import Recipe, find_recipe, find_repository
from contextrl.envs.suite import SuiteRun
from contextrl.envs.tasks import read_tasks
from contextrl.envs.types import Outcome, Task, TaskSource

REAL = Path(__file__).parents[3] / "shared" / "data" / "swe_smith_bugs.jsonl.gz"
SOURCE = """\
class Cart:
    def total(self, prices):
        result = 0
        for price in prices:
            result += price
        return result
"""
PATCH = """\
diff --git a/cart.py b/cart.py
--- a/cart.py
+++ b/cart.py
@@ -4,3 +4,3 @@ class Cart:
         for price in prices:
-            result += price
+            result -= price
         return result
"""
ROW = {
    "instance_id": "owner__cart.0123abcd.func_basic__x1",
    "repo": "swesmith/owner__cart.0123abcd",
    "base_commit": "0" * 40,
    "bug_patch": PATCH,
}
FAILS, PASSES, ELSEWHERE = "tests/test_a.py::test_total", "tests/test_a.py::test_b", "t/c.py::d"


def base(**changes) -> Baseline:
    fields = {
        "image": "cart:1",
        "tests": ("tests",),
        "trusted": (FAILS, PASSES, ELSEWHERE),
        "seconds": 1.0,
        "read_source": {"cart.py": SOURCE}.get,
    }
    return Baseline(**{**fields, **changes})


def run(failing=(), *, crash="", ended=True) -> SuiteRun:
    outcomes = dict.fromkeys((FAILS, PASSES, ELSEWHERE), Outcome.PASSED)
    outcomes |= dict.fromkeys(failing, Outcome.FAILED)
    return SuiteRun(ended=ended, outcomes=outcomes, crashes=dict.fromkeys(failing, crash))


def test_a_bug_that_a_test_sees_is_a_task():
    found = task_of(bug_from_row(ROW), base(), run([FAILS], crash="assert -3 == 3"), limit_s=60)
    assert isinstance(found, Task)
    assert found.source is TaskSource.SWE_SMITH
    assert found.repo == "owner/cart"
    assert found.setup_patch == PATCH
    assert "-            result -= price\n+            result += price\n" in found.gold_patch
    assert found.fail_to_pass == (FAILS,)
    # grading runs whole files, so the tests of other files are not listed
    assert found.pass_to_pass == (PASSES,)
    assert found.problem == ("Cart.total in cart.py is wrong.\ntest_total fails: E assert -3 == 3")


@pytest.mark.parametrize(
    ("report", "stage"),
    [
        (run(), BugStage.SEEN),
        (run([FAILS, PASSES]), BugStage.SPARES),
        (run([FAILS], ended=False), BugStage.ENDS),
    ],
)
def test_any_other_bug_is_lost_at_a_named_stage(report, stage):
    outcome = task_of(bug_from_row(ROW), base(), report, limit_s=60)
    assert outcome.lost is stage
    counts = {each.stage: (each.seen, each.kept) for each in stages([outcome])}
    assert counts[stage] == (1, 0)
    assert all(seen == kept for name, (seen, kept) in counts.items() if name != stage)


def test_the_issue_never_shows_a_changed_line():
    crash = "NameError: in `result += price` something is undefined"
    issue = bug_issue(PATCH, FAILS, crash, {"cart.py": SOURCE}.get)
    assert issue == "Cart.total in cart.py is wrong.\ntest_total fails: E NameError"


def test_a_file_that_is_no_python_has_no_functions():
    assert changed_functions(PATCH, {"cart.py": "{% not python %}"}.get) == {"cart.py": ()}
    assert changed_functions(PATCH, {"cart.py": SOURCE}.get) == {"cart.py": ("Cart.total",)}
    issue = bug_issue(PATCH, FAILS, "", {}.get)
    assert issue == "something in cart.py is wrong.\ntest_total fails."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instance_id": "cart-1"}, "field instance_id"),
        ({"instance_id": "../../x"}, "field instance_id"),
        ({"bug_patch": ""}, "field bug_patch"),
        ({"bug_patch": "no diff"}, "found no file"),
        ({"bug_patch": "GIT binary patch\n"}, "found a binary one"),
        ({"base_commit": "--upload-pack=x"}, "field base_commit"),
    ],
)
def test_an_unusable_row_says_why(changes, said):
    with pytest.raises(TaskRowError, match=said):
        bug_from_row({**ROW, **changes})


def test_every_row_of_a_file_is_counted(tmp_path):
    path = tmp_path / "bugs.jsonl.gz"
    with gzip.open(path, "wt") as stream:
        for row in (ROW, ROW, {**ROW, "bug_patch": 3}, [1]):
            stream.write(json.dumps(row) + "\n")
    bugs, unusable = read_bugs(path)
    assert [bug.instance_id for bug in bugs] == [ROW["instance_id"]]
    assert len(unusable) == 3


def test_the_real_bugs_are_read():
    if not REAL.exists():
        pytest.skip("../shared/data is not here")
    bugs, unusable = read_bugs(REAL)
    assert (len(bugs), len(unusable)) == (809, 0)
    assert {bug.repo for bug in bugs} == {
        "jawah/charset_normalizer",
        "marshmallow-code/apispec",
        "marshmallow-code/webargs",
    }
    assert all(find_recipe(bug.repo) for bug in bugs)


def test_repositories_take_turns():
    bugs = [
        BugRow(instance_id=f"{repo}{n}", repo=repo, mirror=repo, base_commit="0" * 8, patch="")
        for repo in ("a/a", "b/b")
        for n in range(5)
    ]
    order = mixed(bugs, seed=1)
    assert [bug.repo for bug in order[:4]] == ["a/a", "b/b"] * 2
    assert mixed(bugs[::-1], seed=1) == order
    assert mixed(bugs, seed=2) != order


def test_a_mirror_of_one_commit_is_found_by_its_name(tmp_path):
    for name in ("swesmith+o__n.01234567/repo", "o__m.89abcdef"):
        (tmp_path / name / "objects").mkdir(parents=True)
        (tmp_path / name / "HEAD").write_text("ref: refs/heads/main\n")
    assert find_repository(tmp_path, "o/n") == tmp_path / "swesmith+o__n.01234567" / "repo"
    assert find_repository(tmp_path, "o/m") == tmp_path / "o__m.89abcdef"
    assert find_repository(tmp_path, "o/x") is None


TINY = {
    "caught": ("def add(a, b):\n    return a + b", "def add(a, b):\n    return a - b"),
    "unseen": ("def add(a, b):\n", "def add(a, b):\n    # no test sees a comment\n"),
}


@pytest.fixture
def tiny_bugs(tmp_path, tiny_files) -> Path:

    rows = []
    for name, (right, wrong) in TINY.items():
        old = tiny_files["tiny.py"]
        new = old.replace(right, wrong)
        assert new != old
        diff = "".join(
            difflib.unified_diff(
                old.splitlines(True), new.splitlines(True), "a/tiny.py", "b/tiny.py"
            )
        )
        rows.append(
            {
                "instance_id": f"example__tiny.00000000.func_basic__{name}",
                "base_commit": "0" * 40,
                "bug_patch": f"diff --git a/tiny.py b/tiny.py\n{diff}",
            }
        )
    rows.append({"instance_id": "broken"})
    path = tmp_path / "bugs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.docker
def test_bugs_are_built_validated_and_resumed(
    tiny_bugs, docker_provider, tiny_image, tmp_path, monkeypatch
):
    recipe = Recipe(repo="example/tiny", requirements=("pytest==8.3.4",))
    monkeypatch.setattr(bug_tasks, "find_recipe", lambda repo: recipe)
    asked = []

    def ensure(task: Task) -> str:
        asked.append(task.task_id)
        return tiny_image

    bench = BugBench(
        ensure_image=ensure,
        provider=docker_provider,
        grader=DockerGrader(docker_provider),
        repos=tmp_path,
        scratch=tmp_path / "scratch",
    )
    out = tmp_path / "out"
    options = {"seed": 0, "limit": None, "workers": 2, "resume": False, "overwrite": False}
    manifest = build_bug_folder(tiny_bugs, out, bench, **options)
    (task,) = read_tasks(out / "tasks.jsonl")
    assert task.task_id.endswith("caught")
    assert "tests/test_tiny.py::test_add" in task.fail_to_pass
    assert "test_add fails" in task.problem
    lost = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert {each["instance_id"]: each["lost"] for each in lost} == {
        "broken": BugStage.READ,
        "example__tiny.00000000.func_basic__unseen": BugStage.SEEN,
    }
    assert [(each.seen, each.kept) for each in manifest.stages][:1] == [(3, 2)]
    assert manifest.tasks == {"example/tiny": 1}
    assert len(asked) == 1
    with pytest.raises(MutationError, match="pass --resume"):
        build_bug_folder(tiny_bugs, out, bench, **options)
    again = build_bug_folder(tiny_bugs, out, bench, **{**options, "resume": True})
    assert again == manifest
    assert len(asked) == 1  # nothing was tried again


@pytest.mark.docker
def test_a_repository_that_cannot_be_built_loses_its_bugs_only(
    tiny_bugs, docker_provider, tmp_path
):
    def ensure(task: Task) -> str:
        raise ImageError("no recipe")

    bench = BugBench(
        ensure_image=ensure,
        provider=docker_provider,
        grader=DockerGrader(docker_provider),
        repos=tmp_path,
        scratch=tmp_path / "scratch",
    )
    manifest = build_bug_folder(
        tiny_bugs,
        tmp_path / "out",
        bench,
        seed=0,
        limit=None,
        workers=1,
        resume=False,
        overwrite=False,
    )
    kept = {each.stage: each.kept for each in manifest.stages}
    assert kept[BugStage.READ] == 2
    assert kept[BugStage.BASELINE] == 0
