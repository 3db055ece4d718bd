"""Masks of real runs against expectations that were found by reading those runs.

Each line says in which messages (counted after the two prompts) the fix can be read, a text of the
fix that must be gone from all of them, and a text of the evidence that must have stayed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from contextrl.agents.formats.files import rows
from contextrl.agents.formats.read import read_row
from contextrl.agents.types import Message
from contextrl.pairs.answer import mentions, source_part
from contextrl.pairs.diffs import touched_files
from contextrl.pairs.errors import LeakError
from contextrl.pairs.masking import (
    assert_no_leak,
    diff_spans,
    fingerprint,
    fragment_spans,
    mask_run,
)
from contextrl.pairs.tool_edits import reply_edit_spans

DATA = next(
    (
        folder / "shared" / "data"
        for folder in Path(__file__).parents
        if (folder / "shared" / "data" / "trajectory_formats").is_dir()
    ),
    Path("absent"),
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="real rows are not at hand")

NEBIUS = "trajectory_formats/nebius_swe-agent-trajectories.json.gz"
OPENHANDS = "trajectory_formats/swe-gym_openhands_sampled_trajectories.json.gz"
SMITH = "trajectory_formats/swe-smith.json.gz"
TRAJ = "trajectory_formats/swe_agent_pydantic.traj.gz"
MINI = "mini_swe_verified_trajectories.jsonl.gz"

READ_BY_EYE = [
    # edit 5:5 ... end_of_edit, and the view it prints
    (NEBIUS, 0, [6, 7], "import plumbum.cli as cli", "5:import . as cli"),
    # two edits that were refused and one per condition; 2 creates a script, which is evidence
    (NEBIUS, 1, [10, 14, 15, 18, 19], "np.all(transform_out", "if transform_out == 0.0:"),
    # message 5 is a view from before the edit: an added line stands elsewhere in the file already
    (NEBIUS, 2, [5, 6, 7], "Version(openapi_version)", "openapi_version: Version,"),
    (NEBIUS, 3, [4, 5], "np.abs(data) >= (", "limit = (data >= (total * limit)).sum()"),
    # five edits, three of them refused with a preview of the file
    (NEBIUS, 4, [*range(8, 18)], "treon [PATH...]", "path = args['PATH'] or os.getcwd()"),
    (OPENHANDS, 0, [28, 29, 30, 31], "has_non_slots_base =", "_add_slots(ctx, attributes)"),
    (OPENHANDS, 1, [12, 13], "torch.tensor(1.0, requires", "Requires grad: False"),
    (OPENHANDS, 3, [28, 29], "isinstance(paths, str)", '.get("Items") or {}).get("Path") or []'),
    # 10 names the fix before it is made, 40 is the closing summary, 41 the diff at submission
    (SMITH, 1, [10, 20, 21, 32, 33, 34, 35, 40, 41], '"_%s" % key] =', 'row["_%s" * key] = row'),
    (SMITH, 2, [7, 12, 13, 16, 17, 24, 25, 31], "seen_block = False", "raw_slice.slice_type"),
    # 39 and 43: the diff shown at the first and at the second submission
    (TRAJ, 0, [12, 13, 14, 15, 22, 23, 28, 29, 39, 43], "([A-Z])([A-Z][a-z])", "httpresponse"),
    # sed -i; 29 and 35 are `git diff` outputs
    (MINI, 0, [10, 12, 29, 35, 39], "-right.shape[1]:] = right", "-right.shape[1]:] = 1"),
    # cat > FILE <<EOF with the whole file; code quoted in thoughts before and after
    (MINI, 20, [12, 16, 22, 25, 27], "['PGSSLMODE'] = str", "passwd = conn_params.get("),
    # the one added line stands in the file already, so only the edit and the diffs can be known
    (MINI, 77, [20, 39, 41, 43], None, "for i in range(self.max_post_process_passes)"),
]


def episode(file: str, number: int) -> tuple[tuple[Message, ...], str]:
    """Messages after the prompts, and the source part of what the run itself submitted."""
    path = DATA / file
    run = next(read_row(at.row, name=at.name) for at in rows(path, {number}))
    messages = run.trajectory.messages[2:]
    patch = run.trajectory.submission
    if file == SMITH:  # its column holds another repository's patch: the run shows its own
        shown = [m.content for m in messages if m.role == "user" and diff_spans(m.content)]
        spans = diff_spans(shown[-1])
        patch = shown[-1][spans[0][0] : spans[-1][1]]
    return messages, source_part(patch)


@needs_data
@pytest.mark.parametrize(("file", "number", "places", "fix", "evidence"), READ_BY_EYE)
def test_masks_of_a_real_run_are_where_a_reader_found_them(file, number, places, fix, evidence):
    messages, answer = episode(file, number)
    masked = mask_run(messages, [answer]).messages
    changed = [i for i, (a, b) in enumerate(zip(messages, masked, strict=True)) if a != b]
    assert changed == places
    text = "\n".join(message.content for message in masked)
    before = "\n".join(message.content for message in messages)
    assert fix is None or (fix in before and fix not in text)
    assert evidence in text
    assert_no_leak(answer, masked)
    if fix is not None:
        with pytest.raises(LeakError):
            assert_no_leak(answer, messages)


@needs_data
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_patch_of_another_repository_is_noticed_in_real_rows(number):
    run = next(read_row(at.row) for at in rows(DATA / SMITH, {number}))
    assert not mentions(touched_files(run.trajectory.submission), run.trajectory.messages[1:])
    assert mentions(touched_files(episode(SMITH, number)[1]), run.trajectory.messages[1:])


def test_the_answer_is_the_source_part_of_what_was_submitted(make):
    fix = make.gold("low")
    script = make.diff("", "import shapes\n", "reproduce.py").replace(
        "--- a/reproduce.py", "--- /dev/null"
    )
    test = make.diff("a = 1\n", "a = 2\n", "tests/test_shapes.py")
    setup = make.diff("a = 1\n", "a = 2\n", "setup.py")
    kept = source_part(fix + script + test + setup)
    assert touched_files(kept) == (make.file,)
    assert source_part(script + test) == ""


XML = (
    "I edit.\n<function=str_replace_editor>\n<parameter=command>{verb}</parameter>\n"
    "<parameter=path>/testbed/{path}</parameter>\n<parameter=new_str>a = 2</parameter>\n</function>"
)


@pytest.mark.parametrize(
    ("reply", "open_file", "masked"),
    [
        (XML.format(verb="str_replace", path="pkg/a.py"), None, ["a = 2"]),
        (XML.format(verb="insert", path="pkg/a.py"), None, ["a = 2"]),
        (XML.format(verb="create", path="reproduce.py"), None, []),
        (
            "<function=bash>\n<parameter=command>sed -i 's/1/2/' a.py</parameter>\n</function>",
            None,
            ["'s/1/2/'"],
        ),
        (
            "<function=apply_patch>\n<parameter=patch>*** a</parameter>\n</function>",
            None,
            ["*** a"],
        ),
        ("```\nedit 5:6\na = 2\nend_of_edit\n```", "/repo/pkg/a.py", ["a = 2\n"]),
        ("```\nedit 5:6\na = 2\nend_of_edit\n```", "/repo/reproduce.py", []),
    ],
)
def test_edits_by_tools(reply, open_file, masked):
    spans = reply_edit_spans(reply, ["pkg/a.py"], open_file)
    assert [reply[slice(*span)] for span in spans] == masked


def test_a_quoted_piece_of_the_fix_is_found_and_a_name_is_not(make):
    mark = fingerprint(make.diff("x = clamp(value)\n", "x = clamp(min(value, limit))\n"))
    reply = "Now it is `min(value, limit)`, with `clamp(value)` before; see `shapes.clamp_limit`."
    assert [reply[slice(*span)] for span in fragment_spans(mark, reply)] == ["min(value, limit)"]
