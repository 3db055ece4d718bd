"""A scripted agent that works as models do: reproduce, look, edit, look again, test, submit.

Where `scripted.solution_script` is the shortest run that solves a task, for a policy to learn from,
this one leaves the evidence that pairs are mined from: it has seen the bug, and it shows its fix in
an echo that must be masked.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk, PatchedFile, PatchSet

from contextrl.agents.errors import AgentsError
from contextrl.agents.prompting import PromptSet
from contextrl.agents.scripted import apply_command
from contextrl.envs.types import Task

AROUND = 30
"""Lines shown above and below a hunk."""
MAX_VIEWS = 8
"""Views before the edit; a patch of more places is seen in part."""


def looking_script(task: Task, prompts: PromptSet) -> tuple[str, ...]:
    """Replies that solve `task` with its gold patch after a look at the places it changes.

    Raises `AgentsError` if the gold patch is not a unified diff.
    """
    try:
        files = list(PatchSet(task.gold_patch))
    except UnidiffParseError as error:
        raise AgentsError(
            f"{task.task_id}: expected a unified diff as gold patch: {error}"
        ) from error
    if not files:
        raise AgentsError(f"{task.task_id}: expected a unified diff as gold patch, found none")
    views = [view for file in files if not file.is_added_file for view in _views(file)][:MAX_VIEWS]
    test = _test_command(task)
    says = [
        *([(test, "I run the failing test first.")] if test else []),
        *((view, "I read the code around the place in question.") for view in views),
        (_edit_command(files, task.gold_patch), "I see what is wrong and correct it."),
        *((view, "I check what the file says now.") for view in views[:1]),
        *([(test, "I run the test again.")] if test else []),
        (prompts.submit_command, "The test passes, so I submit the change."),
    ]
    return tuple(prompts.render_reply(command, thought=thought) for command, thought in says)


def _test_command(task: Task) -> str:
    """Of a test that the issue itself names; empty for hidden ones."""
    shown = [
        test
        for test in task.fail_to_pass
        if test.partition("::")[2].replace("::", ".") in task.problem and "::" in test
    ]
    if not shown:
        return ""
    # Without what the repository adds of its own, coverage above all, which drowns the failure.
    options = "-q -x --tb=short -o addopts= -p no:cacheprovider"
    return f"python -m pytest {options} {shlex.quote(shown[0])} 2>&1 | tail -n 30"


def _views(file: PatchedFile) -> list[str]:
    """One command for each stretch of lines, hunks that are near each other shown together."""
    stretches: list[tuple[int, int]] = []
    for hunk in file:
        first, last = _lines(hunk)
        if stretches and first <= stretches[-1][1] + 1:
            stretches[-1] = (stretches[-1][0], last)
        else:
            stretches.append((first, last))
    name = shlex.quote(file.path)
    return [f"grep -n '' {name} | sed -n '{first},{last}p'" for first, last in stretches]


def _lines(hunk: Hunk) -> tuple[int, int]:
    return max(1, hunk.source_start - AROUND), hunk.source_start + hunk.source_length + AROUND


def _edit_command(files: Sequence[PatchedFile], patch: str) -> str:
    """A replacement of text where the patch has one hunk, else the patch."""
    if len(files) == 1 and len(files[0]) == 1 and files[0].is_modified_file:
        hunk = files[0][0]
        old = "".join(line.value for line in hunk if line.is_context or line.is_removed)
        new = "".join(line.value for line in hunk if line.is_context or line.is_added)
        body = (
            "from pathlib import Path\n"
            f"path = Path({files[0].path!r})\n"
            f"text = path.read_bytes().decode()\n"
            f"old = {old!r}\n"
            f"new = {new!r}\n"
            "assert text.count(old) == 1\n"
            "path.write_bytes(text.replace(old, new).encode())"
        )
        if "\\ No newline" not in patch and "\r" not in patch and "\nPY\n" not in body:
            return f"python3 - <<'PY'\n{body}\nPY"
    return apply_command(patch)
