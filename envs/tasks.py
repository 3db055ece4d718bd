"""Dataset rows -> `Task`. What datasets call things and how they name images lives only here.

Rows of SWE-Gym, SWE-bench and SWE-smith as their hubs have them, rows of the release's parquet
(such a row inside the column `instance`), and our own tasks, in JSONL, JSON or parquet files.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from pydantic import ValidationError

from contextrl.envs.errors import TaskRowError
from contextrl.envs.reverse import reverse_patch
from contextrl.envs.types import Task, TaskSource

Row = Mapping[str, Any]

CONDA_SETUP = """\
if [ -f /opt/miniconda3/bin/activate ]; then
  . /opt/miniconda3/bin/activate
  conda activate testbed
fi"""
"""For SWE-Gym, SWE-bench and SWE-smith images; images that we build have no conda and skip it."""

_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@=-]{0,199}(?:/[A-Za-z0-9._+@=-]{1,100})?")
_SMITH_ID = re.compile(r"(?P<owner>.+?)__(?P<name>.+)\.(?P<sha>[0-9a-f]{8})(?:\..+)?")


def read_tasks(path: Path | str, *, limit: int | None = None) -> list[Task]:
    """The file's tasks, in order. Raises `TaskRowError` that names the row, the field, the file."""
    path = Path(path)
    tasks: list[Task] = []
    seen: set[str] = set()
    for number, row in enumerate(read_rows(path), start=1):
        if limit is not None and len(tasks) >= limit:
            break
        try:
            task = task_from_row(row)
        except TaskRowError as error:
            name = (
                row.get("instance_id") or row.get("task_id") if isinstance(row, Mapping) else None
            )
            raise TaskRowError(f"{path}, row {number} ({name or 'no id'}): {error}") from error
        if task.task_id in seen:
            raise TaskRowError(f"{path}, row {number}: task_id {task.task_id} appears twice")
        seen.add(task.task_id)
        tasks.append(task)
    return tasks


def write_tasks(path: Path | str, tasks: Iterable[Task]) -> None:
    """The file holds the tasks as JSONL, whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with _open_text(partial, "wt", compressed=path.suffix == ".gz") as stream:
        for task in tasks:
            stream.write(task.model_dump_json() + "\n")
    partial.replace(path)


def task_from_row(row: Row, *, source: TaskSource | None = None) -> Task:
    """One row of any supported dataset. Raises `TaskRowError` that names the field."""
    if not isinstance(row, Mapping):
        raise TaskRowError(f"expected an object, found {type(row).__name__}")
    if "instance" in row:
        instance = row["instance"]
        if isinstance(instance, str | bytes):
            instance = _json(instance, "instance")
        return task_from_row(instance, source=_named_source(row.get("data_source")) or source)
    if "task_id" in row and "image" in row:
        return _checked(_own_task(row))
    source = source or _guess_source(row)
    return _checked(_smith_task(row) if source is TaskSource.SWE_SMITH else _swe_task(row, source))


def _own_task(row: Row) -> Task:
    try:
        return Task.model_validate(dict(row))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TaskRowError(f"field {field}: {first['msg'].lower()}") from error


def _swe_task(row: Row, source: TaskSource) -> Task:
    instance_id = _text(row, "instance_id")
    name = instance_id.lower()
    if source is TaskSource.SWE_GYM:
        image = f"xingyaoww/sweb.eval.x86_64.{name.replace('__', '_s_')}:latest"
    else:
        image = f"swebench/sweb.eval.x86_64.{name.replace('__', '_1776_')}:latest"
    return Task(
        task_id=instance_id,
        source=source,
        repo=_text(row, "repo"),
        base_commit=_text(row, "base_commit"),
        problem=_text(row, "problem_statement"),
        image=str(row.get("image_name") or row.get("docker_image") or image),
        shell_setup=CONDA_SETUP,
        gold_patch=_text(row, "patch"),
        test_patch=_text(row, "test_patch"),
        fail_to_pass=_tests(row, "FAIL_TO_PASS", required=True),
        pass_to_pass=_tests(row, "PASS_TO_PASS"),
    )


def _smith_task(row: Row) -> Task:
    """SWE-smith's `patch` makes the bug: the agent starts from it, and its reverse is the fix."""
    instance_id = _text(row, "instance_id")
    parts = _SMITH_ID.fullmatch(instance_id)
    if parts is None:
        raise TaskRowError(
            "field instance_id: expected <owner>__<repo>.<8 hex digits>.<bug>, "
            f"found {instance_id!r}"
        )
    owner, name, sha = parts["owner"], parts["name"], parts["sha"]
    bug = _text(row, "patch")
    image = (
        row.get("image_name") or f"jyangballin/swesmith.x86_64.{owner}_1776_{name}.{sha}".lower()
    )
    return Task(
        task_id=instance_id,
        source=TaskSource.SWE_SMITH,
        repo=f"{owner}/{name}",
        base_commit=str(row.get("base_commit") or sha),
        problem=_text(row, "problem_statement"),
        image=str(image),
        shell_setup=CONDA_SETUP,
        setup_patch=bug,
        gold_patch=reverse_patch(bug),
        fail_to_pass=_tests(row, "FAIL_TO_PASS", required=True),
        pass_to_pass=_tests(row, "PASS_TO_PASS"),
    )


def _guess_source(row: Row) -> TaskSource:
    """By what only one dataset has; SWE-Gym and SWE-bench differ in their images alone."""
    if str(row.get("image_name", "")).split("/")[-1].startswith("swesmith.") or (
        str(row.get("repo", "")).startswith("swesmith/")
    ):
        return TaskSource.SWE_SMITH
    # SWE-bench rows carry it always, SWE-Gym rows never.
    return TaskSource.SWE_BENCH if "environment_setup_commit" in row else TaskSource.SWE_GYM


def _named_source(name: object) -> TaskSource | None:
    """The release writes `swe-gym`, `SWE-Gym/SWE-Gym`, `swe_smith`, ... in `data_source`."""
    text = str(name or "").lower().replace("_", "-")
    for source in (TaskSource.SWE_SMITH, TaskSource.SWE_GYM, TaskSource.SWE_BENCH):
        if source.value in text or source.value.replace("-", "") in text:
            return source
    return None


def _checked(task: Task) -> Task:
    """Ids become folder names and paths go into commands: neither may step outside."""
    if not _TASK_ID.fullmatch(task.task_id) or ".." in task.task_id:
        raise TaskRowError(
            f"field task_id: expected letters, digits and ._+@=-, found {task.task_id!r}"
        )
    if not PurePosixPath(task.workdir).is_absolute() or ".." in PurePosixPath(task.workdir).parts:
        raise TaskRowError(f"field workdir: expected an absolute path, found {task.workdir!r}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", task.image):
        raise TaskRowError(f"field image: expected the name of an image, found {task.image!r}")
    for test in (*task.fail_to_pass, *task.pass_to_pass):
        file = test.partition("::")[0]
        outside = file.startswith(("/", "-")) or ".." in PurePosixPath(file).parts
        if not test or outside or any(character in test for character in "\0\n\r"):
            raise TaskRowError(f"expected a test id below the repository, found {test!r}")
    return task


def _text(row: Row, field: str) -> str:
    if field not in row or row[field] is None:
        raise TaskRowError(f"field {field} is missing")
    if not isinstance(row[field], str):
        raise TaskRowError(f"field {field}: expected text, found {type(row[field]).__name__}")
    return str(row[field])


def _tests(row: Row, field: str, *, required: bool = False) -> tuple[str, ...]:
    """Test ids from a list, or from one written as JSON or, in some SWE-Gym rows, as Python."""
    if field not in row or row[field] is None:
        raise TaskRowError(f"field {field} is missing")
    value = row[field]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
                raise TaskRowError(f"field {field}: expected a list of test ids") from error
    elif hasattr(value, "tolist"):  # a numpy array, as parquet readers give
        value = value.tolist()
    if not isinstance(value, list | tuple) or not all(isinstance(test, str) for test in value):
        raise TaskRowError(f"field {field}: expected a list of test ids")
    if required and not value:
        raise TaskRowError(f"field {field}: expected at least one test id, found none")
    return tuple(dict.fromkeys(value))


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSONL, JSON or parquet file as they are. Raises `TaskRowError`."""
    if not path.is_file():
        raise TaskRowError(f"expected a file of tasks, found none at {path}")
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    try:
        with _open_text(path, "rt", compressed=path.suffix == ".gz") as stream:
            first = stream.read(1)
            while first.isspace():
                first = stream.read(1)
            stream.seek(0)
            if first == "[":
                yield from _json(stream.read(), str(path))
                return
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _json(line, f"{path}, line {number}")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise TaskRowError(f"{path} cannot be read: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise TaskRowError(f"{path} is not a parquet file: {error}") from error


def _json(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise TaskRowError(f"{where}: not JSON: {error}") from error


def _open_text(path: Path, mode: Literal["rt", "wt"], *, compressed: bool) -> IO[str]:
    if compressed:
        return gzip.open(path, mode, encoding="utf-8")
    return path.open(mode, encoding="utf-8")
