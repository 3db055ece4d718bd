"""One function with two bugs, runs that saw and fixed them, and a tiny tokenizer."""

from __future__ import annotations

import difflib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from contextrl.agents.types import Message, StopReason, Trajectory
from contextrl.envs.types import Reward, Task, TaskSource, Verdict

FILE = "shapes/clamp.py"
ORIGINAL = """\
LIMIT = 10


def clamp(value, low, high):
    \"\"\"Value, moved into the range.\"\"\"
    if value < low:
        return low
    if value > high:
        return high
    middle = (low + high) / 2
    return value if value else middle


def spread(values):
    ordered = sorted(values)
    return ordered[-1] - ordered[0]
"""
BUGS = {
    "low": ("    if value < low:", "    if value <= low:"),
    "high": ("    if value > high:", "    if value >= high:"),
    "middle": ("    middle = (low + high) / 2", "    middle = (low + high) * 2"),
    "spread": (
        "    return ordered[-1] - ordered[0]",
        "    return ordered[-1] + ordered[0]",
    ),
}


def make_diff(before: str, after: str, file: str = FILE) -> str:
    lines = difflib.unified_diff(
        before.splitlines(True), after.splitlines(True), f"a/{file}", f"b/{file}"
    )
    return f"diff --git a/{file} b/{file}\nindex 1111111..2222222 100644\n" + "".join(lines)


def numbered(text: str, first: int = 1) -> str:
    return "".join(f"{n}:{line}\n" for n, line in enumerate(text.splitlines(), start=first))


def buggy(bug: str) -> str:
    right, wrong = BUGS[bug]
    return ORIGINAL.replace(right, wrong)


class Maker:
    """Builds tasks and runs of the two-bug function."""

    file = FILE
    original = ORIGINAL
    bugs = BUGS
    diff = staticmethod(make_diff)
    numbered = staticmethod(numbered)
    buggy = staticmethod(buggy)

    def gold(self, bug: str) -> str:
        return make_diff(buggy(bug), ORIGINAL)

    def task(self, bug: str, **changes: object) -> Task:
        function = "spread" if bug == "spread" else "clamp"
        fields: dict[str, object] = {
            "task_id": f"shapes__{bug}",
            "source": TaskSource.MUTATION,
            "repo": "someone/shapes",
            "base_commit": "abc123",
            "problem": f"{function} in {FILE}: test_{bug} fails",
            "image": "shapes:1",
            "setup_patch": make_diff(ORIGINAL, buggy(bug)),
            "gold_patch": self.gold(bug),
            "fail_to_pass": (f"tests/test_shapes.py::test_{bug}",),
        }
        return Task(**{**fields, **changes})  # type: ignore[arg-type]

    def run(
        self,
        bug: str,
        *,
        sample: int = 0,
        resolved: bool = False,
        view: str | None = None,
        edit: str | None = None,
        after: str = "",
        thought: str = "I replace the line.",
        **changes: object,
    ) -> Trajectory:
        """Look, edit with sed, look again when `after` is given, submit."""
        right, _ = BUGS[bug]
        line = ORIGINAL.splitlines().index(right) + 1
        edit = edit if edit is not None else f"sed -i '{line}c\\{right}' {FILE}"
        view = view if view is not None else numbered(buggy(bug))
        messages = [
            Message(role="system", content="You are an agent."),
            Message(role="user", content=f"Fix {bug}. Sample {sample}."),
            Message(role="assistant", content=f"I look.\n```bash\ngrep -n '' {FILE}\n```"),
            Message(role="user", content=view),
            Message(role="assistant", content=f"{thought}\n```bash\n{edit}\n```"),
            Message(role="user", content="(no output)"),
        ]
        if after:
            messages += [
                Message(role="assistant", content=f"Again.\n```bash\ncat {FILE}\n```"),
                Message(role="user", content=after),
            ]
        messages.append(Message(role="assistant", content="Done.\n```bash\nsubmit\n```"))
        fields: dict[str, object] = {
            "trajectory_id": f"shapes__{bug}/mine-0/{sample}",
            "task_id": f"shapes__{bug}",
            "sample": sample,
            "policy": "scripted",
            "messages": tuple(messages),
            "stop_reason": StopReason.SUBMITTED,
            "submission": self.gold(bug) if resolved else "",
            "reward": Reward(verdict=Verdict.RESOLVED if resolved else Verdict.UNRESOLVED),
        }
        return Trajectory(**{**fields, **changes})  # type: ignore[arg-type]

    def mined(self):
        """The two ordered pairs of the bugs `low` and `high`."""
        from contextrl.pairs.cascade import mine

        bugs = ("low", "high")
        result = mine([self.run(bug) for bug in bugs], [self.task(bug) for bug in bugs])
        assert len(result.pairs) == 2
        return result.pairs


@pytest.fixture(scope="session")
def make() -> Maker:
    return Maker()


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level BPE, a few merges, Qwen's markup: what the tiny policy uses, smaller."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    model.train_from_iterator([ORIGINAL, "option A option B\n"] * 4, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.add_tokens(["<think>", "</think>"])
    fast.chat_template = TEMPLATE
    return fast


class ChatServer:
    """`reply(prompt)` gives the text; `faults` are played first, one per request."""

    def __init__(self, reply: Callable[[str], str]) -> None:
        self.reply = reply
        self.faults: deque[str] = deque()
        self.prompts: list[str] = []
        self.finish = "stop"
        self.keys: list[str] = []
        """What each request was authorized with."""
        self.asked: list[dict[str, Any]] = []
        """The requests, whole."""
        self.letters: Callable[[str], dict[str, float]] | None = None
        """Prompt -> log-probabilities of the first token; None hides them."""
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        size = int(request.headers["content-length"])
        body = json.loads(request.rfile.read(size))
        prompt = body["messages"][-1]["content"]
        with self.lock:
            fault = self.faults.popleft() if self.faults else ""
            self.prompts.append(prompt)
            self.keys.append(request.headers.get("authorization", ""))
            self.asked.append(body)
        if fault == "stall":
            time.sleep(3)
            return
        if fault:
            code, _, pause = fault.partition(" ")
            self.send(request, int(code), {"error": {"message": "no"}}, pause)
            return
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": self.finish,
            "message": {"role": "assistant", "content": self.reply(prompt)},
        }
        if body.get("logprobs") and self.letters is not None:
            top = [
                {"token": token, "logprob": value, "bytes": None}
                for token, value in self.letters(prompt).items()
            ]
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        self.send(
            request,
            200,
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            },
        )

    def send(
        self, request: BaseHTTPRequestHandler, code: int, body: dict[str, Any], pause: str = ""
    ) -> None:
        data = json.dumps(body).encode()
        request.send_response(code)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(data)))
        if pause:
            request.send_header("retry-after", pause)
        request.end_headers()
        request.wfile.write(data)


@contextmanager
def _chat_server(reply: Callable[[str], str]) -> Iterator[ChatServer]:
    server = ChatServer(reply)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}/v1"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()


@pytest.fixture(scope="session")
def chat_server():
    """`with chat_server(reply) as server:` a real HTTP server on a free port of this machine."""
    return _chat_server
