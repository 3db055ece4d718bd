"""Made-up bugs are in one line of the function, and the run's edit mends exactly that line."""

import re

import pytest

from contextrl.agents.prompting import COMPACT
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy, solution_script
from contextrl.agents.types import Limits
from contextrl.envs.fake import FakeProvider
from contextrl.envs.types import Task
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.made_up_bugs import BugMaker

SOURCE = """def total(items, start=0):
    result = start
    for item in items:
        result = result + item["price"] * 2
    return result

"""
FIX = """--- a/toy.py
+++ b/toy.py
@@ -3,3 +3,3 @@
     for item in items:
-        result = result - item["price"] * 2
+        result = result + item["price"] * 2
     return result
"""
BUG = """--- a/toy.py
+++ b/toy.py
@@ -3,3 +3,3 @@
     for item in items:
-        result = result + item["price"] * 2
+        result = result - item["price"] * 2
     return result
"""


@pytest.fixture(scope="module")
def shown():
    task = Task.model_validate(
        {
            "task_id": "toy-1",
            "repo": "toy/toy",
            "base_commit": "0" * 40,
            "problem": "total in toy.py is wrong.",
            "image": "toy",
            "workdir": "/testbed",
            "setup_patch": BUG,
            "gold_patch": FIX,
            "fail_to_pass": ("test_toy.py::test_total",),
            "pass_to_pass": ("test_toy.py::test_other",),
            "source": "mutation",
        }
    )
    provider = FakeProvider({"toy.py": SOURCE})
    run = rollout(task, provider, ScriptedPolicy(solution_script(task, COMPACT)), COMPACT, Limits())
    return task, run


def test_the_edits_restore_the_source(shown):
    task, run = shown
    maker = BugMaker([task], [run], COMPACT, seed=0)
    seen, counts = set(), set()
    for _ in range(60):
        look, *edits, submit = maker.draw().steps
        lines = [line.partition(":")[2] for line in look.observation.split("\n")]
        source = SOURCE.split("\n")[: len(lines)]
        wrong = [i for i, (a, b) in enumerate(zip(lines, source, strict=True)) if a != b]
        assert len(wrong) == len(edits)
        for at, edit in zip(wrong, edits, strict=True):
            found = re.fullmatch(r"sed -i '(\d+)c\\(.*)' toy\.py", edit.command)
            assert int(found[1]) == at + 1
            assert found[2] == source[at]
            assert edit.command in edit.text
        assert submit == run.steps[2]
        seen |= {lines[at] for at in wrong}
        counts.add(len(edits))
    assert counts == {1, 2, 3}
    assert len(seen) > 60


def test_the_same_seed_draws_the_same_bugs(shown):
    task, run = shown
    one, two = (BugMaker([task], [run], COMPACT, seed=3) for _ in range(2))
    assert [one.draw() for _ in range(5)] == [two.draw() for _ in range(5)]


def test_fixes_that_are_no_single_line_are_said_to_be_none(shown):
    _, run = shown
    longer = FIX.replace("+3,3", "+3,4").replace("     return", "+    pass\n     return")
    task = shown[0].model_copy(update={"gold_patch": longer})
    with pytest.raises(ConfigError, match="one line"):
        BugMaker([task], [run], COMPACT, seed=0)
