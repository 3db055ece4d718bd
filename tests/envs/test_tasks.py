"""Rows as the datasets' hubs have them."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from contextrl.envs.errors import TaskRowError
from contextrl.envs.reverse import reverse_patch
from contextrl.envs.tasks import read_tasks, task_from_row, write_tasks
from contextrl.envs.types import TaskSource

SHARED = Path(__file__).parents[3] / "shared" / "data"

PATCH = "--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
GYM_ROW = {
    "instance_id": "getMoto__moto-1",
    "repo": "getmoto/moto",
    "base_commit": "a" * 40,
    "problem_statement": "It fails.",
    "patch": PATCH,
    "test_patch": PATCH,
    "FAIL_TO_PASS": ["tests/test_a.py::test_one[a b]"],
    "PASS_TO_PASS": "['tests/test_a.py::test_two']",
}
SMITH_ROW = {
    "instance_id": "Owner__name.0123abcd.func_basic__x1",
    "repo": "swesmith/Owner__name.0123abcd",
    "image_name": "jyangballin/swesmith.x86_64.owner_1776_name.0123abcd",
    "problem_statement": "It broke.",
    "patch": PATCH,
    "FAIL_TO_PASS": '["tests/test_a.py::test_one"]',
    "PASS_TO_PASS": [],
}


def needs(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs {path}")
    return path


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_swe_gym_row():
    task = task_from_row(GYM_ROW)
    assert task.source is TaskSource.SWE_GYM
    assert task.image == "xingyaoww/sweb.eval.x86_64.getmoto_s_moto-1:latest"
    assert task.fail_to_pass == ("tests/test_a.py::test_one[a b]",)
    assert task.pass_to_pass == ("tests/test_a.py::test_two",)
    assert "conda activate testbed" in task.shell_setup


def test_swe_bench_row():
    task = task_from_row({**GYM_ROW, "environment_setup_commit": "b" * 40})
    assert task.source is TaskSource.SWE_BENCH
    assert task.image == "swebench/sweb.eval.x86_64.getmoto_1776_moto-1:latest"


def test_swe_smith_patch_is_the_bug():
    task = task_from_row(SMITH_ROW)
    assert task.source is TaskSource.SWE_SMITH
    assert task.repo == "Owner/name"
    assert task.setup_patch == PATCH
    assert task.gold_patch == "--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-x = 2\n+x = 1\n"
    assert task_from_row({**SMITH_ROW, "image_name": None}).image == SMITH_ROW["image_name"]


@pytest.mark.parametrize("as_text", [True, False])
def test_rows_of_the_release(as_text):
    row = {"instance": json.dumps(GYM_ROW) if as_text else GYM_ROW, "data_source": "SWE-Gym"}
    assert task_from_row(row).task_id == "getMoto__moto-1"
    assert task_from_row({**row, "data_source": "swe_bench"}).source is TaskSource.SWE_BENCH


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch": None}, "field patch is missing"),
        ({"FAIL_TO_PASS": []}, "field FAIL_TO_PASS: expected at least one test id"),
        ({"FAIL_TO_PASS": "not a list"}, "field FAIL_TO_PASS: expected a list of test ids"),
        ({"PASS_TO_PASS": [1]}, "field PASS_TO_PASS: expected a list of test ids"),
        ({"problem_statement": 3}, "field problem_statement: expected text, found int"),
        ({"instance_id": "../../etc"}, "field task_id"),
        ({"FAIL_TO_PASS": ["../x.py::t"]}, "expected a test id below the repository"),
        ({"FAIL_TO_PASS": ["/etc/x.py::t"]}, "expected a test id below the repository"),
        ({"FAIL_TO_PASS": ["--pdb"]}, "expected a test id below the repository"),
        ({"image_name": "x; rm -rf /"}, "field image"),
    ],
)
def test_a_bad_row_is_one_line_with_file_row_and_field(tmp_path, change, said):
    path = write_lines(tmp_path / "rows.jsonl", GYM_ROW, {**GYM_ROW, "instance_id": "b", **change})
    with pytest.raises(TaskRowError) as caught:
        read_tasks(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, row 2 (")
    assert said in message
    assert "\n" not in message


def test_files_that_are_no_tasks(tmp_path):
    with pytest.raises(TaskRowError, match="found none at"):
        read_tasks(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(TaskRowError, match="line 1: not JSON"):
        read_tasks(tmp_path / "bad.jsonl")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(TaskRowError, match="cannot be read"):
        read_tasks(tmp_path / "bad.jsonl.gz")
    with pytest.raises(TaskRowError, match="appears twice"):
        read_tasks(write_lines(tmp_path / "twice.jsonl", GYM_ROW, GYM_ROW))


@pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.jsonl.gz"])
def test_our_own_tasks_survive_a_file(tmp_path, name):
    tasks = [task_from_row(GYM_ROW), task_from_row(SMITH_ROW)]
    write_tasks(tmp_path / name, tasks)
    assert read_tasks(tmp_path / name) == tasks
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert read_tasks(tmp_path / name, limit=1) == tasks[:1]


def test_json_arrays_and_gzip(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps([GYM_ROW, SMITH_ROW], indent=1))
    assert [task.source for task in read_tasks(tmp_path / "rows.json")] == ["swe-gym", "swe-smith"]
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as stream:
        stream.write(json.dumps(GYM_ROW) + "\n\n")
    assert len(read_tasks(tmp_path / "rows.jsonl.gz")) == 1


def test_parquet_of_the_release(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    struct = {**GYM_ROW, "PASS_TO_PASS": ["tests/test_a.py::test_two"]}
    for number, instance in enumerate((json.dumps(GYM_ROW), struct)):
        table = pyarrow.Table.from_pylist([{"instance": instance, "data_source": "swe-gym"}])
        parquet.write_table(table, tmp_path / f"{number}.parquet")
    assert read_tasks(tmp_path / "0.parquet") == read_tasks(tmp_path / "1.parquet")


def test_real_swe_gym_rows():
    tasks = read_tasks(needs("swe_gym_moto.jsonl"))
    assert [task.task_id for task in tasks] == [
        "getmoto__moto-7365",
        "getmoto__moto-6920",
        "getmoto__moto-5876",
    ]
    assert [len(task.pass_to_pass) for task in tasks] == [1, 7, 2]


def test_real_swe_bench_rows():
    tasks = read_tasks(needs("swe_bench_sample.jsonl"))
    assert {task.source for task in tasks} == {TaskSource.SWE_BENCH}
    assert all(task.fail_to_pass and task.pass_to_pass for task in tasks)


MANY_CHANGES = """\
diff --git a/gone.py b/gone.py
deleted file mode 100644
index 1111111..0000000
--- a/gone.py
+++ /dev/null
@@ -1,2 +0,0 @@
-one
-two
diff --git a/old.py b/new.py
similarity index 60%
rename from old.py
rename to new.py
index 2222222..3333333 100644
--- a/old.py
+++ b/new.py
@@ -1,4 +1,5 @@
 first
--- not a header
+++ nor this
+added
 third
-last
\\ No newline at end of file
+last
"""


def test_reversing_a_patch_restores_every_file(tmp_path):
    def git(*arguments: str, stdin: str | None = None) -> None:
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *arguments], input=stdin, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr

    git("init", "-q")
    (tmp_path / "gone.py").write_text("one\ntwo\n")
    (tmp_path / "old.py").write_text("first\n-- not a header\nthird\nlast")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.py")}
    git("apply", "-", stdin=MANY_CHANGES)
    assert {path.name for path in tmp_path.glob("*.py")} == {"new.py"}
    git("apply", "-", stdin=reverse_patch(MANY_CHANGES))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.py")} == before


def test_reversing_real_bugs_twice_gives_them_back():
    with gzip.open(needs("swe_smith_bugs.jsonl.gz"), "rt", encoding="utf-8") as stream:
        bugs = [json.loads(line)["bug_patch"] for line in stream]
    assert len(bugs) > 800
    for bug in bugs:
        once = reverse_patch(bug)
        assert sorted(reverse_patch(once).splitlines()) == sorted(bug.splitlines())
        assert once.count("\n") == bug.count("\n")


def test_a_binary_patch_cannot_be_reversed():
    with pytest.raises(TaskRowError, match="binary"):
        reverse_patch("diff --git a/x b/x\nGIT binary patch\nliteral 1\n")
