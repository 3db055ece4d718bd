"""Tools as commands of the sandbox: each shell finds them, whatever became of the one before."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Sequence

from contextrl.envs.repository import inline_file
from contextrl.envs.types import Task

FOLDER = "/tmp/.contextrl-tools"
"""Outside the repository, so that no diff, no `git status` and no test ever sees it."""

# Runs of mini-swe-agent-plus say `python edit_via_str_replace`: there the program lies in the
# repository, which it would dirty. A file of that name in the working directory comes first.
AS_SCRIPT = """
for CONTEXTRL_NAME in python python3; do
  eval "$CONTEXTRL_NAME() {
    if [ \\"\\${1-}\\" = {name} ] && [ ! -e {name} ]; then shift; {name} \\"\\$@\\"
    else command $CONTEXTRL_NAME \\"\\$@\\"; fi
  }"
done
unset CONTEXTRL_NAME
"""


def equipped(task: Task, programs: Sequence[str], *, as_scripts: bool = False) -> Task:
    """The task, with these programs on the path of each of its shells.

    `as_scripts`: `python NAME ...` finds them too. A sandbox without `python3` fails to start.
    """
    parts = [task.shell_setup, "CONTEXTRL_BEFORE=$?"] if task.shell_setup else []
    parts += [_install(name) for name in programs]
    if as_scripts:
        parts += [AS_SCRIPT.replace("{name}", name).strip("\n") for name in programs]
    parts += [
        f'export PATH="{FOLDER}:$PATH"',
        # What the image's own set-up ended with must not be lost behind ours.
        '[ "${CONTEXTRL_BEFORE:-0}" = 0 ] && { command -v python3 >/dev/null ||'
        " { echo 'the tools need python3, found none'; false; }; }",
    ]
    return task.model_copy(update={"shell_setup": "\n".join(parts)})


@functools.cache
def _install(name: str) -> str:
    file = importlib.resources.files("contextrl.agents.actions.programs").joinpath(f"{name}.py")
    # Isolated: a module of the repository must not stand in for one that the tool imports.
    wrapper = f'#!/bin/sh\nexec python3 -I {FOLDER}/{name}.py "$@"\n'
    return "\n".join(
        [
            f"if [ ! -x {FOLDER}/{name} ]; then",
            f"mkdir -p {FOLDER}",
            inline_file(f"{FOLDER}/{name}.py", file.read_bytes()),
            inline_file(f"{FOLDER}/{name}", wrapper.encode()),
            f"chmod 755 {FOLDER}/{name}",
            "fi",
        ]
    )
