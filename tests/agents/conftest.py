"""A sandbox made of a function, a policy made of replies, and a tiny byte-level tokenizer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from contextrl.agents.types import Limits
from contextrl.envs.errors import SandboxError
from contextrl.envs.types import ExecResult, Outcome, Reward, Task, TaskSource, Verdict


def _make_task(task_id: str = "toy__add-1", **fields: Any) -> Task:
    defaults: dict[str, Any] = {
        "task_id": task_id,
        "source": TaskSource.MUTATION,
        "repo": "toy/toy",
        "base_commit": "0" * 40,
        "problem": "add in toy.py is wrong.\ntest_add fails: E assert -1 == 3",
        "image": "toy:1",
        "gold_patch": (
            "--- a/toy.py\n+++ b/toy.py\n@@ -1,2 +1,2 @@\n"
            " def add(a, b):\n-    return a - b\n+    return a + b\n"
        ),
        "fail_to_pass": ("test_toy.py::test_add",),
    }
    return Task(**{**defaults, **fields})


class ScriptedSandbox:
    """Answers with `respond(command)`; a returned exception is raised."""

    def __init__(self, respond: Callable[[str], ExecResult | Exception], diff: str) -> None:
        self.sandbox_id = "fake"
        self.commands: list[str] = []
        self.timeouts: list[float] = []
        self.closed = 0
        self.diff_error: Exception | None = None
        self.close_error: Exception | None = None
        self._respond = respond
        self._diff = diff

    def exec(self, command: str, *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        self.commands.append(command)
        self.timeouts.append(timeout_s)
        result = self._respond(command)
        if isinstance(result, Exception):
            raise result
        return result

    def read_file(self, path: str) -> bytes:
        raise NotImplementedError

    def write_file(self, path: str, content: bytes) -> None:
        raise NotImplementedError

    def diff(self) -> str:
        if self.diff_error:
            raise self.diff_error
        return self._diff

    def close(self) -> None:
        self.closed += 1
        if self.close_error:
            raise self.close_error

    def __enter__(self) -> ScriptedSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def echo(command: str) -> ExecResult:
    return ExecResult(output=f"ran: {command}\n", exit_code=0, seconds=0.01)


class ScriptedProvider:
    def __init__(
        self,
        respond: Callable[[str], ExecResult | Exception] = echo,
        *,
        diff: str = "a diff",
        start_errors: list[Exception] | None = None,
    ) -> None:
        self.sandboxes: list[ScriptedSandbox] = []
        self.starts = 0
        self.closed = 0
        self._respond, self._diff = respond, diff
        self._start_errors = list(start_errors or [])
        self._lock = threading.Lock()

    def start(self, task: Task) -> ScriptedSandbox:
        with self._lock:
            self.starts += 1
            if self._start_errors:
                raise self._start_errors.pop(0)
            self.sandboxes.append(ScriptedSandbox(self._respond, self._diff))
            return self.sandboxes[-1]

    def close(self) -> None:
        self.closed += 1


class ScriptedGrader:
    """Resolved if the diff is the expected one."""

    def __init__(self, expected: str = "a diff", *, errors: int = 0) -> None:
        self.graded: list[str] = []
        self._expected = expected
        self._errors = errors

    def grade(self, task: Task, diff: str) -> Reward:
        self.graded.append(diff)
        if self._errors:
            self._errors -= 1
            raise SandboxError("the grading container died")
        good = diff == self._expected
        return Reward(
            verdict=Verdict.RESOLVED if good else Verdict.UNRESOLVED,
            tests={name: Outcome.PASSED if good else Outcome.FAILED for name in task.fail_to_pass},
        )


@pytest.fixture
def make_task() -> Callable[..., Task]:
    return _make_task


@pytest.fixture
def task() -> Task:
    return _make_task()


@pytest.fixture
def make_provider() -> type[ScriptedProvider]:
    return ScriptedProvider


@pytest.fixture
def make_grader() -> type[ScriptedGrader]:
    return ScriptedGrader


@pytest.fixture
def limits() -> Limits:
    return Limits(max_turns=5, max_new_tokens=200, max_context_tokens=2000)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """A byte-level BPE with the ChatML specials and a chat template. No network."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    text = (
        "user\n assistant\n system\n\n\n ```bash\n```\n def return self (no output) sed -i grep -n"
    )
    model.train_from_iterator([text] * 5, trainer)

    def make(chat_template: str = CHATML) -> Any:
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=model,
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
            additional_special_tokens=["<|im_start|>"],
        )
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: Callable[..., Any]) -> Any:
    return make_tokenizer()
