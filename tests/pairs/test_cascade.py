from __future__ import annotations

import itertools
import random

import pytest

from contextrl.agents.types import Message, StopReason
from contextrl.pairs.cascade import Caps, mine
from contextrl.pairs.errors import PairsError
from contextrl.pairs.masking import MASK, assert_no_leak
from contextrl.pairs.splits import SplitBy, split_pairs


def counts(result):
    return {stage.name: (stage.seen, stage.kept) for stage in result.stages}


def test_two_bugs_of_one_function_make_a_pair_in_each_direction(make):
    first, second = make.mined()
    assert {first.positive.task_id, second.positive.task_id} == {"shapes__low", "shapes__high"}
    for pair in (first, second):
        assert pair.answer == make.gold(pair.positive.task_id.removeprefix("shapes__"))
        assert pair.provenance.function == "clamp"
        assert pair.provenance.file == make.file
        assert pair.provenance.answer_from == "gold"
        assert pair.positive.task_id != pair.negative.task_id
        assert any(MASK in message.content for message in pair.positive.messages)
        assert_no_leak(pair.answer, pair.positive.messages)


def test_the_context_starts_after_the_prompt(make):
    for pair in make.mined():
        assert pair.positive.messages[0].role == "assistant"
        assert not any("You are an agent" in m.content for m in pair.positive.messages)


def test_every_stage_goes_on_from_what_the_one_before_kept(make):
    bugs = ("low", "high", "middle", "spread")
    runs = [make.run(bug, sample=s) for bug in bugs for s in range(2)]
    runs.append(make.run("low", sample=9, task_id="unknown", trajectory_id="unknown/0"))
    result = mine(runs, [make.task(bug) for bug in bugs])
    for unit in ("runs", "pairs"):
        stages = [stage for stage in result.stages if stage.unit == unit]
        assert all(a.kept == b.seen for a, b in itertools.pairwise(stages))
        assert all(0 <= stage.kept <= stage.seen for stage in stages)
    assert counts(result)["repository and commit are known"] == (9, 8)
    assert counts(result)["same file"] == (8 * 7, 8 * 7)
    # six runs in clamp, two in spread
    assert counts(result)["same function"] == (8 * 7, 6 * 5 + 2)
    # runs of one task are not a contrast
    assert counts(result)["different bug"] == (32, 6 * 4)
    assert len(result.pairs) == result.stages[-1].kept


def test_a_resolved_run_answers_with_its_own_submission(make):
    submission = make.gold("low") + make.diff("", "notes\n", "NOTES.txt")
    runs = [make.run("low", resolved=True, submission=submission), make.run("high")]
    result = mine(runs, [make.task("low"), make.task("high")])
    answers = {pair.positive.task_id: pair for pair in result.pairs}
    # without what is no source: the notes
    assert answers["shapes__low"].answer == make.gold("low")
    assert answers["shapes__low"].provenance.answer_from == "submission"
    assert answers["shapes__high"].provenance.answer_from == "gold"


def test_infrastructure_failures_are_left_out_and_counted(make):
    failed = make.run("high", stop_reason=StopReason.SANDBOX_ERROR)
    result = mine([make.run("low"), failed], [make.task("low"), make.task("high")])
    assert result.pairs == ()
    assert counts(result)["infrastructure held"] == (2, 1)


def test_a_run_that_never_looked_is_no_evidence(make):
    blind = make.run("low", view="(no output)")
    result = mine([blind, make.run("high")], [make.task("low"), make.task("high")])
    assert result.pairs == ()
    assert counts(result)["both runs saw their bug"] == (2, 0)


def test_a_removed_line_that_both_sides_show_is_ambiguous(make):
    both = make.numbered(make.buggy("high")) + "old version:\n" + make.bugs["low"][1] + "\n"
    runs = [make.run("low"), make.run("high", view=both)]
    result = mine(runs, [make.task("low"), make.task("high")])
    # only the answer to `low` became ambiguous
    assert [pair.positive.task_id for pair in result.pairs] == ["shapes__high"]
    assert counts(result)["evidence on one side only"] == (2, 1)


def test_a_removed_line_inside_a_longer_line_is_not_ambiguous(make):
    # the fix of `cut` removes `return value`; twins show `return value if value else middle`
    right = "    return value if value else middle"
    cut = make.original.replace(right, "    return value")
    gold = make.diff(cut, make.original)
    task = make.task("low", task_id="shapes__cut", gold_patch=gold)
    run = make.run(
        "low",
        view=make.numbered(cut),
        edit=f"sed -i '11c\\{right}' {make.file}",
        task_id="shapes__cut",
        trajectory_id="shapes__cut/0",
    )
    result = mine([run, make.run("high")], [task, make.task("high")])
    assert len(result.pairs) == 2


def test_a_line_that_goes_and_comes_again_decides_nothing(make):
    # the fix only adds a line; the last one moves with the end of the file
    last = "    return ordered[-1] - ordered[0]"
    added = make.original.replace("    ordered = sorted(values)\n", "")
    gold = make.diff(added.rstrip("\n"), make.original)
    assert f"-{last}" in gold
    tasks = [make.task("spread", task_id="shapes__gap", gold_patch=gold), make.task("spread")]
    runs = [
        make.run("spread", task_id="shapes__gap", trajectory_id="gap/0", view=make.numbered(added)),
        make.run("spread"),
    ]
    for pair in mine(runs, tasks).pairs:
        if pair.positive.task_id == "shapes__gap":
            assert last.strip() not in pair.positive.decisive


def test_an_answer_in_the_issue_is_a_leak(make):
    told = make.task("low", problem="it should say: if value < low:")
    result = mine([make.run("low"), make.run("high")], [told, make.task("high")])
    assert [pair.positive.task_id for pair in result.pairs] == ["shapes__high"]
    assert counts(result)["no added line can be read"] == (2, 1)


def test_one_bug_under_two_names_is_not_a_contrast(make):
    twin = make.task("low", task_id="shapes__low2")
    run = make.run("low", task_id="shapes__low2", trajectory_id="low2/0", sample=1)
    result = mine([make.run("low"), run], [make.task("low"), twin])
    assert counts(result)["different bug"] == (2, 0)


def test_an_identical_run_counts_once(make):
    again = make.run("low").model_copy(update={"trajectory_id": "again", "sample": 1})
    tasks = [make.task("low"), make.task("high")]
    result = mine([make.run("low"), again, make.run("high")], tasks)
    assert counts(result)["no other run is the same"] == (3, 2)
    with pytest.raises(PairsError, match="one trajectory per id"):
        mine([make.run("low"), make.run("low", thought="Other.")], tasks)


def test_a_patch_of_another_repository_is_left_out(make):
    foreign = make.run("low", resolved=True, submission=make.diff("a\n", "b\n", "other/x.py"))
    result = mine([foreign, make.run("high")], [make.task("low"), make.task("high")])
    assert counts(result)["the patch is of its own repository"] == (2, 1)


@pytest.mark.parametrize("patch", ["not a diff", "--- a/x\n+++ b/x\n@@ -1 +1 @@\n", "\0"])
def test_a_hostile_submission_stops_one_run_only(make, patch):
    hostile = make.run("low", resolved=True, submission=patch)
    result = mine([hostile, make.run("high")], [make.task("low"), make.task("high")])
    assert counts(result)["its patch can be read"] == (2, 1)


def test_no_runs_are_an_error(make):
    with pytest.raises(PairsError, match="expected runs"):
        mine([], [make.task("low")])


def test_the_result_does_not_depend_on_the_order_of_inputs(make):
    bugs = ("low", "high", "middle")
    runs = [make.run(bug, sample=s) for bug in bugs for s in range(4)]
    tasks = [make.task(bug) for bug in bugs]
    caps = Caps(per_function=10, per_trajectory=4)
    expected = mine(runs, tasks, seed=3, caps=caps)
    shuffler = random.Random(0)
    for _ in range(3):
        shuffler.shuffle(runs)
        shuffler.shuffle(tasks)
        assert mine(runs, tasks, seed=3, caps=caps) == expected
    assert mine(runs, tasks, seed=4, caps=caps) != expected


def test_caps_hold_and_both_directions_stay_together(make):
    bugs = ("low", "high", "middle")
    runs = [make.run(bug, sample=s) for bug in bugs for s in range(4)]
    tasks = [make.task(bug) for bug in bugs]
    whole = mine(runs, tasks, caps=Caps(per_function=99, per_trajectory=99, per_bug_couple=99))
    assert len(whole.pairs) == 12 * 8
    result = mine(runs, tasks, caps=Caps(per_trajectory=4, per_bug_couple=3))
    uses, couples = {}, {}
    for pair in result.pairs:
        for side in (pair.positive, pair.negative):
            uses[side.trajectory_id] = uses.get(side.trajectory_id, 0) + 1
        couple = (pair.positive.task_id, pair.negative.task_id)
        couples[couple] = couples.get(couple, 0) + 1
    assert max(uses.values()) <= 4
    assert max(couples.values()) <= 3
    directed = {(p.positive.trajectory_id, p.negative.trajectory_id) for p in result.pairs}
    assert directed == {(b, a) for a, b in directed}
    assert len(mine(runs, tasks, caps=Caps(limit=5)).pairs) == 5


def many_pairs(make):
    bugs = tuple(make.bugs)
    runs = [make.run(bug, sample=s) for bug in bugs for s in range(2)]
    tasks = [make.task(bug) for bug in bugs]
    # a second file with the same content doubles the functions
    copies = []
    for bug in bugs:
        moved = make.gold(bug).replace(make.file, "shapes/copy.py")
        copies.append(make.task(bug, task_id=f"copy__{bug}", gold_patch=moved))
        runs.append(make.run(bug, task_id=f"copy__{bug}", trajectory_id=f"copy__{bug}/0"))
    return mine(runs, [*tasks, *copies]).pairs


@pytest.mark.parametrize("by", list(SplitBy))
def test_no_run_and_no_task_is_on_both_sides_of_a_split(make, by):
    pairs = many_pairs(make)
    split = split_pairs(pairs, held_out_frac=0.4, seed=1, by=by)
    assert split.train
    assert len(split.train) + len(split.held_out) + split.dropped == len(pairs)
    for name in ("task_id", "trajectory_id"):
        sides = [
            {getattr(c, name) for pair in part for c in (pair.positive, pair.negative)}
            for part in (split.train, split.held_out)
        ]
        assert not sides[0] & sides[1]
    assert split == split_pairs(pairs, held_out_frac=0.4, seed=1, by=by)


def test_held_out_functions_are_new(make):
    split = split_pairs(many_pairs(make), held_out_frac=0.5, by=SplitBy.FUNCTION)
    functions = [
        {(p.provenance.file, p.provenance.function) for p in part}
        for part in (split.train, split.held_out)
    ]
    assert all(functions)
    assert not functions[0] & functions[1]
    assert split.dropped == 0


def test_a_message_with_the_fix_after_the_edit_is_masked(make):
    after = make.numbered(make.original)
    runs = [make.run("low", after=after), make.run("high")]
    result = mine(runs, [make.task("low"), make.task("high")])
    pair = next(p for p in result.pairs if p.positive.task_id == "shapes__low")
    shown = "\n".join(message.content for message in pair.positive.messages)
    assert "if value < low:" not in shown
    assert f"6:    {MASK}" in shown
    assert Message(role="user", content=make.numbered(make.buggy("low"))) in pair.positive.messages
