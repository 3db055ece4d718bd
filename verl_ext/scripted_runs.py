"""Scripted solutions of many tasks, played in a few long-lived sandboxes.

For the warm-up only: the commands are our own, so an episode may follow another in one
container after a reset, which costs a hundredth of a fresh one. Policies never share a
sandbox.
"""

from __future__ import annotations

import queue
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from contextrl.agents.prompting import PromptSet
from contextrl.agents.rollout import rollout
from contextrl.agents.scripted import ScriptedPolicy, solution_script
from contextrl.agents.types import Limits, Trajectory
from contextrl.envs.errors import TaskSetupError
from contextrl.envs.types import ExecResult, Sandbox, SandboxProvider, Task

SETUP_TIMEOUT_S = 30.0
PATCH_PATH = "/tmp/contextrl-setup.patch"


class ResettingProvider:
    """Hands out `sandboxes` that were put into a task's start state, and takes them back on close.

    All tasks must share the image and workdir of the sandboxes' own task.
    """

    def __init__(self, sandboxes: Sequence[Sandbox]) -> None:
        self._idle: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
        for sandbox in sandboxes:
            self._idle.put(sandbox)

    def start(self, task: Task) -> Sandbox:
        sandbox = self._idle.get()
        sandbox.write_file(PATCH_PATH, task.setup_patch.encode())
        patch = shlex.quote(PATCH_PATH)
        workdir = shlex.quote(task.workdir)
        apply = f"git apply {patch}" if task.setup_patch else "true"
        reset = f"cd {workdir} && git reset -q --hard && git clean -qfd && {apply}"
        done = sandbox.exec(reset, timeout_s=SETUP_TIMEOUT_S)
        if done.exit_code != 0:
            self._idle.put(sandbox)
            raise TaskSetupError(f"task {task.task_id}: {done.output.strip()[-200:]}")
        return _Leased(sandbox, self._idle)

    def close(self) -> None:
        """The sandboxes belong to whoever made them."""


class _Leased:
    """A sandbox whose `close` gives it back."""

    def __init__(self, sandbox: Sandbox, idle: queue.SimpleQueue[Sandbox]) -> None:
        self.sandbox_id = sandbox.sandbox_id
        self._sandbox: Sandbox | None = sandbox
        self._idle = idle

    def exec(self, command: str, *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        return self._held.exec(command, timeout_s=timeout_s, stdin=stdin)

    def read_file(self, path: str) -> bytes:
        return self._held.read_file(path)

    def write_file(self, path: str, content: bytes) -> None:
        self._held.write_file(path, content)

    def diff(self) -> str:
        """Empty: nobody grades a script, and a diff costs more than its whole episode."""
        return ""

    def close(self) -> None:
        if self._sandbox is not None:
            self._idle.put(self._sandbox)
            self._sandbox = None

    def __enter__(self) -> _Leased:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _held(self) -> Sandbox:
        assert self._sandbox is not None, "used after close"
        return self._sandbox


def play_scripts(
    tasks: Sequence[Task],
    provider: SandboxProvider,
    prompts: PromptSet,
    limits: Limits,
    *,
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Trajectory]:
    """One scripted episode per task, in order. Tasks must share one image and workdir."""
    if not tasks:
        return []
    with ExitStack() as stack:
        intact = tasks[0].model_copy(update={"setup_patch": ""})
        sandboxes = [stack.enter_context(provider.start(intact)) for _ in range(workers)]
        resetting = ResettingProvider(sandboxes)

        def play(task: Task) -> Trajectory:
            policy = ScriptedPolicy(solution_script(task, prompts))
            return rollout(task, resetting, policy, prompts, limits)

        trajectories = []
        with ThreadPoolExecutor(workers) as pool:
            for done, trajectory in enumerate(pool.map(play, tasks), start=1):
                trajectories.append(trajectory)
                progress(done)
    return trajectories
