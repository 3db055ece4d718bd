"""What a table of trajectories shows of each file that can be read, and of those that cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contextrl.agents.errors import RunStoreError
from contextrl.agents.store import TRAJECTORIES
from contextrl.agents.types import BranchPoint, Message, Step, StopReason, Trajectory
from contextrl.agents.viewer.index import Row, TrajectoryIndex, in_tree_order
from contextrl.agents.viewer.outcomes import Failure, classify
from contextrl.agents.viewer.steps import Kind, kind_of, lacks, views
from contextrl.agents.viewer.visible import visible

DATA = Path(__file__).parents[3] / "shared" / "data"
FORMATS = DATA / "trajectory_formats"


def make(number: int, **fields: object) -> Trajectory:
    step = Step(text="look", command="ls", observation="a.py", exit_code=0)
    return Trajectory(
        **{
            "trajectory_id": f"task-{number}/rollout-0/0",
            "task_id": f"task-{number}",
            "policy": "tiny",
            "messages": (Message(role="user", content="fix it"),),
            "steps": (step,),
            "stop_reason": StopReason.MAX_TURNS,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("name", "count", "outcome"),
    [
        ("nebius_swe-agent-trajectories.json.gz", 5, Failure.RESOLVED),
        ("swe-gym_openhands_sampled_trajectories.json.gz", 5, Failure.RESOLVED),
        ("swe-smith.json.gz", 5, Failure.RESOLVED),
        ("swe_agent_pydantic.traj.gz", 1, Failure.UNGRADED),
    ],
)
def test_public_formats_read_and_say_what_they_lack(name, count, outcome):
    if not (FORMATS / name).exists():
        pytest.skip("the shared data is not here")
    index = TrajectoryIndex(FORMATS / name)
    assert index.refresh() == count
    assert index.refresh() == 0
    assert {row.failure for row in index.rows} == {outcome}
    for row in reversed(index.rows):  # not in the file's order
        trajectory = index.load(row.number)
        assert trajectory.trajectory_id == row.trajectory_id
        assert len(views(trajectory)) == row.turns >= 5
        assert any(view.kind is Kind.EDIT for view in views(trajectory))
        assert any("no tokens" in reason for reason in lacks(trajectory))
        assert any("cannot be re-executed" in reason for reason in lacks(trajectory))


def test_one_pretty_printed_trajectory_is_a_file_of_one(tmp_path):
    file = tmp_path / "one.json"
    file.write_text(json.dumps(make(1).model_dump(mode="json"), indent=2))
    index = TrajectoryIndex(file)
    assert index.refresh() == 1
    assert index.load(0) == make(1)


def test_an_episode_played_again_is_one_row_that_says_how_it_ended_last(tmp_path):
    file = tmp_path / TRAJECTORIES
    first = make(1, stop_reason=StopReason.SANDBOX_ERROR)
    file.write_text(f"{first.model_dump_json()}\n{make(2).model_dump_json()}\n")
    index = TrajectoryIndex(tmp_path)
    assert (index.refresh(), index.replaced) == (2, 0)
    with file.open("a") as stream:
        stream.write(make(1).model_dump_json() + "\n")
    assert (index.refresh(), index.replaced) == (0, 1)
    assert [(row.number, row.stop_reason) for row in index.rows] == [
        (0, "max-turns"),
        (1, "max-turns"),
    ]
    assert index.load(0) == index.current(make(1).trajectory_id) == make(1)


def test_two_rows_of_one_id_in_somebody_elses_file_are_two_episodes(tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text(f"{make(1).model_dump_json()}\n" * 2)
    index = TrajectoryIndex(file)
    assert (index.refresh(), len(index.rows)) == (2, 2)


def test_a_bad_line_is_a_row_that_says_why_and_the_others_are_there(tmp_path):
    lines = [make(1).model_dump_json(), "{oops", '{"schema_version": 1}', make(2).model_dump_json()]
    deep = "[" * 100_000
    (tmp_path / TRAJECTORIES).write_text("\n".join([*lines, deep]) + "\n")
    index = TrajectoryIndex(tmp_path)
    index.refresh()
    assert [row.failure for row in index.rows] == [
        Failure.UNGRADED,
        Failure.UNREADABLE,
        Failure.UNREADABLE,
        Failure.UNGRADED,
        Failure.UNREADABLE,
    ]
    assert all(row.problem for row in index.rows if row.failure is Failure.UNREADABLE)
    for number in (1, 2, 4):
        with pytest.raises(RunStoreError, match=f"row {number + 1} is not a trajectory"):
            index.load(number)
    assert index.load(3) == make(2)


def test_a_folder_without_a_run_is_refused_with_a_hint(tmp_path):
    with pytest.raises(RunStoreError, match="`episodes`"):
        TrajectoryIndex(tmp_path)
    with pytest.raises(RunStoreError, match="found none"):
        TrajectoryIndex(tmp_path / "nowhere")


def test_a_single_file_has_its_own_branches_and_not_those_of_its_neighbours(tmp_path):
    file, branches = tmp_path / "one.json", tmp_path / "branches"
    file.write_text(make(1).model_dump_json())
    own = make(2, branch=BranchPoint(parent_id=make(1).trajectory_id, step=1))
    deeper = make(3, branch=BranchPoint(parent_id=own.trajectory_id, step=2))
    foreign = make(4, branch=BranchPoint(parent_id="another", step=1))
    branches.mkdir()
    lines = [each.model_dump_json() for each in (own, foreign, deeper)]
    (branches / TRAJECTORIES).write_text("\n".join(lines) + "\n")
    index = TrajectoryIndex(file, branches=branches)
    index.refresh()
    shown = [(depth, row.trajectory_id) for depth, row in in_tree_order(index.rows)]
    assert shown == list(enumerate(each.trajectory_id for each in (make(1), own, deeper)))
    assert index.load(2) == deeper


def test_branches_stand_below_their_parents_even_in_a_ring():
    def row(number: int, parent: str = "") -> Row:
        return Row(number=number, trajectory_id=f"t{number}", parent_id=parent)

    rows = [row(0), row(1, "t0"), row(2), row(3, "t1"), row(4, "t0"), row(5, "t6"), row(6, "t5")]
    order = [(depth, each.number) for depth, each in in_tree_order(rows)]
    assert order == [(0, 0), (1, 1), (2, 3), (1, 4), (0, 2), (0, 5), (0, 6)]


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("sed -i 's/a/b/' x.py", Kind.EDIT),
        ("cat <<'EOF' > x.py\nprint()\nEOF", Kind.EDIT),
        ("git apply - <<'P'\nP", Kind.EDIT),
        ("str_replace_editor str_replace /x.py --old_str a", Kind.EDIT),
        ("python -m pytest -q 2>&1 | tail", Kind.TEST),
        ("grep -rn x . 2>/dev/null", Kind.SEARCH),
        ("sed -n 1,20p x.py", Kind.READ),
        ("submit", Kind.SUBMIT),
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git diff", Kind.SUBMIT),
        ("python x.py", Kind.RUN),
        (None, Kind.NONE),
    ],
)
def test_kinds_of_commands(command, kind):
    assert kind_of(command) is kind


@pytest.mark.parametrize(
    ("stop", "verdict", "change", "failure"),
    [
        ("submitted", "resolved", True, Failure.RESOLVED),
        ("submitted", "unresolved", True, Failure.WRONG_FIX),
        ("submitted", "unresolved", False, Failure.NO_CHANGE),
        ("max-turns", "unresolved", True, Failure.OUT_OF_BUDGET),
        ("max-format-errors", "unresolved", False, Failure.FORMAT),
        ("submitted", "timeout", True, Failure.TEST_TIMEOUT),
        ("submitted", "tampered", True, Failure.TAMPERED),
        ("sandbox-error", None, False, Failure.INFRASTRUCTURE),
        ("submitted", None, True, Failure.UNGRADED),
        ("eaten by a bear", None, True, Failure.UNREADABLE),
    ],
)
def test_the_taxonomy_of_failures(stop, verdict, change, failure):
    found = classify(stop_reason=stop, verdict=verdict, graded_in_vain=False, has_change=change)
    assert found is failure


def test_graded_in_vain_is_infrastructure():
    assert (
        classify(stop_reason="submitted", verdict=None, graded_in_vain=True, has_change=True)
        is Failure.INFRASTRUCTURE
    )


def test_text_that_would_move_a_cursor_or_turn_a_line_is_shown():
    assert visible("a\u200bb\ufeff") == "a<U+200B>b<U+FEFF>"
    assert visible("a\x1b[2Jb\u202ec\x85d\r\ne\tf\ng") == "a\u241b[2Jb<U+202E>c<U+0085>d\ne\tf\ng"
