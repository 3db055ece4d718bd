"""An agent without a model: it plays given replies, as a chat policy or as a token server.

The same session code serves a script and a model, so a warm-up reads the `TokenRecord`s of scripted
runs and trains on exactly the form that rollouts have.
"""

from __future__ import annotations

import re
import shlex
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk, PatchSet

from contextrl.agents.codec import Tokenizer, codec_of
from contextrl.agents.errors import AgentsError, PolicyError
from contextrl.agents.prompting import PromptSet
from contextrl.agents.tokens import ServedTokens
from contextrl.agents.types import Generation, Message
from contextrl.envs.types import Task


class ScriptedPolicy:
    """Every conversation gets the same replies, in order, and no tokens are counted."""

    def __init__(self, replies: Sequence[str], *, name: str = "scripted") -> None:
        self.name = name
        self._replies = tuple(replies)

    def open(self, messages: Sequence[Message], *, max_context_tokens: int) -> ScriptedSession:
        return ScriptedSession(self._replies)


class ScriptedSession:
    def __init__(self, replies: tuple[str, ...]) -> None:
        self._replies = replies
        self._played = 0

    def room(self) -> int:
        return sys.maxsize

    def act(self, *, max_new_tokens: int) -> Generation:
        text = _reply(self._replies, self._played)
        self._played += 1
        return Generation(text=text)

    def observe(self, content: str) -> bool:
        return True

    def tokens(self) -> None:
        return None


class ScriptedTokenServer:
    """A `TokenServer` that answers every session with the same replies, at log-probability 0."""

    def __init__(
        self,
        replies: Sequence[str],
        tokenizer: Tokenizer,
        *,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._replies = tuple(replies)
        self._codec = codec_of(tokenizer, template_kwargs=template_kwargs)
        self._played: Counter[str] = Counter()
        self._lock = threading.Lock()

    def generate(
        self, prompt_ids: Sequence[int], *, max_new_tokens: int, session_id: str
    ) -> ServedTokens:
        with self._lock:
            played = self._played[session_id]
            self._played[session_id] += 1
        ids = tuple(self._codec.reply_ids(_reply(self._replies, played)))
        kept = ids[:max_new_tokens]
        return ServedTokens(kept, (0.0,) * len(kept), finished=len(kept) == len(ids))


def _reply(replies: Sequence[str], played: int) -> str:
    if played >= len(replies):
        raise PolicyError(f"the script has {len(replies)} replies and was asked for another")
    return replies[played]


def solution_script(task: Task, prompts: PromptSet) -> tuple[str, ...]:
    """Replies that solve `task` with its gold patch.

    A patch that replaces one line becomes a look at the function, a `sed` edit and the submission;
    any other is applied whole. Raises `AgentsError` if the gold patch is not a unified diff.
    """
    submit = prompts.render_reply(
        prompts.submit_command, thought="The change is in place, so I submit it."
    )
    replacement = one_line_replacement(task)
    if replacement is None:
        command = apply_command(task.gold_patch)
        return (prompts.render_reply(command, thought="I apply the fix as one patch."), submit)
    return (
        prompts.render_reply(
            replacement.view_command, thought="I read the code that the issue is about."
        ),
        prompts.render_reply(replacement.edit_command, thought=replacement.thought),
        submit,
    )


@dataclass(frozen=True, slots=True)
class Replacement:
    """A new text for one line of one file, in the coordinates of the agent's start state."""

    file: str
    line: int
    text: str
    function: str | None

    @property
    def thought(self) -> str:
        return f"Line {self.line} is wrong; I replace it."

    @property
    def view_command(self) -> str:
        file = shlex.quote(self.file)
        if self.function is None:
            return f"grep -n '' {file} | sed -n '{max(1, self.line - 8)},{self.line + 8}p'"
        return f"grep -n '' {file} | sed -n '/def {self.function}(/,/^[0-9]*:$/p'"

    @property
    def edit_command(self) -> str:
        # In the one-line form of `c` sed keeps leading blanks and reads backslashes as escapes.
        script = f"{self.line}c\\" + self.text.replace("\\", "\\\\")
        return f"sed -i {_single_quoted(script)} {shlex.quote(self.file)}"


def one_line_replacement(task: Task) -> Replacement | None:
    """The gold patch as the replacement of a single line; None if it is more than that.

    Raises `AgentsError` if it is not a unified diff.
    """
    try:
        patch = PatchSet(task.gold_patch)
    except UnidiffParseError as error:
        raise AgentsError(
            f"{task.task_id}: expected a unified diff as gold patch: {error}"
        ) from error
    if not patch:
        raise AgentsError(f"{task.task_id}: expected a unified diff as gold patch, found none")
    if len(patch) != 1 or len(patch[0]) != 1 or not patch[0].is_modified_file:
        return None
    hunk = patch[0][0]
    removed = [line for line in hunk if line.is_removed]
    added = [line for line in hunk if line.is_added]
    if len(removed) != 1 or len(added) != 1 or removed[0].source_line_no is None:
        return None
    # The two must touch: `- a`, ` b`, `+ c` moves a line and is no replacement.
    kinds = "".join(line.line_type for line in hunk)
    text = added[0].value.removesuffix("\n")
    if "-+" not in kinds or not text or "\r" in text or "\\ No newline" in task.gold_patch:
        return None
    return Replacement(patch[0].path, removed[0].source_line_no, text, _function(task, hunk))


def _function(task: Task, hunk: Hunk) -> str | None:
    """By the issue's first word, as our mutation tasks begin; else by the hunk header."""
    first = re.match(r"`?([\w.]+)`?(?:\(\))? in ", task.problem)
    if first is not None:
        return first.group(1).rpartition(".")[2]
    header = re.search(r"\bdef (\w+)\(", hunk.section_header)
    return header.group(1) if header else None


def apply_command(patch: str) -> str:
    """A shell command that applies `patch`, whatever it contains, from the working directory."""
    lines = set(patch.split("\n"))
    delimiter, n = "PATCH", 1
    while delimiter in lines:
        delimiter, n = f"PATCH{n}", n + 1
    body = patch if patch.endswith("\n") else patch + "\n"
    return f"git apply --whitespace=nowarn - <<'{delimiter}'\n{body}{delimiter}"


def _single_quoted(text: str) -> str:
    """Like `shlex.quote`, but always in quotes: the form that the warm-up teaches is one form."""
    return "'" + text.replace("'", "'\\''") + "'"
