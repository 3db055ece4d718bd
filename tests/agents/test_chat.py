"""A chat policy against a real HTTP server that misbehaves on demand."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from contextrl.agents.chat import ChatPolicy, Endpoint
from contextrl.agents.errors import AgentsError, ContextFullError, PolicyError
from contextrl.agents.prompting import COMPACT, OPENHANDS
from contextrl.agents.rollout import rollout
from contextrl.agents.types import Limits, Message, StopReason


class Server:
    """Answers with the queued (status, body) pairs, then repeats the last one."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append({"path": self.path, **json.loads(body)})
                outer.headers.append(dict(self.headers))
                answers = outer.answers
                status, content = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def say(self, text: str | None, *, finish: str = "stop", total_tokens: int | None = None):
        choice = {"message": {"content": text}, "finish_reason": finish}
        usage = None if total_tokens is None else {"total_tokens": total_tokens}
        self.answers.append((200, json.dumps({"choices": [choice], "usage": usage}).encode()))

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def open_session(server, *, max_context_tokens: int = 1000, **fields):
    endpoint = Endpoint(
        base_url=server.url, model="m", **{"retries": 2, "max_delay_s": 0.01, **fields}
    )
    return ChatPolicy(endpoint).open(
        (Message(role="user", content="hi"),), max_context_tokens=max_context_tokens
    )


def test_a_conversation_goes_through_the_endpoint(server):
    server.say("one")
    server.say("two", finish="length")
    session = open_session(server, api_key="k", extra={"temperature": 0.5})
    assert session.act(max_new_tokens=7).text == "one"
    assert session.observe("out")
    second = session.act(max_new_tokens=7)
    assert second.truncated
    assert session.tokens() is None
    request = server.requests[1]
    assert request["path"] == "/v1/chat/completions"
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("m", 7, 0.5)
    assert [m["content"] for m in request["messages"]] == ["hi", "one", "out"]
    assert server.headers[0]["Authorization"] == "Bearer k"


def test_a_whole_episode(server, task, make_provider):
    for command in ("ls", "submit"):
        server.say(COMPACT.render_reply(command, thought=""))
    policy = ChatPolicy(Endpoint(base_url=server.url, model="m"))
    trajectory = rollout(task, make_provider(), policy, COMPACT, Limits())
    assert trajectory.stop_reason is StopReason.SUBMITTED
    assert trajectory.policy == "m"
    assert trajectory.tokens is None
    assert trajectory.steps[0].token_span is None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server, status):
    server.answers.append((status, b"busy"))
    server.say("one")
    assert open_session(server).act(max_new_tokens=7).text == "one"
    assert len(server.requests) == 2


def test_a_server_that_stays_busy_is_a_policy_error(server):
    server.answers.append((503, b"busy"))
    with pytest.raises(PolicyError, match="3 tries failed, last: HTTP 503: busy"):
        open_session(server).act(max_new_tokens=7)
    assert len(server.requests) == 3


def test_a_refused_request_is_not_repeated(server):
    server.answers.append((401, b"who are you?"))
    with pytest.raises(PolicyError, match="HTTP 401: who are you"):
        open_session(server).act(max_new_tokens=7)
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"choices": []}', b"[]", b"\xff"])
def test_an_answer_that_is_no_completion_is_a_policy_error(server, body):
    server.answers.append((200, body))
    with pytest.raises(PolicyError, match="expected a chat completion"):
        open_session(server).act(max_new_tokens=7)


def test_no_server_is_a_policy_error():
    endpoint = Endpoint(
        base_url="http://127.0.0.1:9", model="m", retries=1, max_delay_s=0.01, timeout_s=2
    )
    session = ChatPolicy(endpoint).open((), max_context_tokens=9)
    with pytest.raises(PolicyError, match="2 tries failed"):
        session.act(max_new_tokens=7)


def test_a_full_context_is_told_apart_from_a_failure(server):
    server.answers.append((400, b"This model's maximum context length is 10 tokens."))
    with pytest.raises(ContextFullError):
        open_session(server).act(max_new_tokens=7)


def test_room_is_what_the_server_counts(server):
    server.say("one", total_tokens=900)
    session = open_session(server)
    assert session.room() > 10**9
    session.act(max_new_tokens=7)
    assert session.room() == 100
    assert not session.observe("x" * 300)
    assert session.observe("x" * 90)
    assert session.room() == 70
    session.act(max_new_tokens=500)
    assert server.requests[1]["max_tokens"] == 70


def test_text_that_no_file_can_hold_is_mended(server):
    server.answers.append((200, b'{"choices": [{"message": {"content": "a\\ud800b"}}]}'))
    assert open_session(server).act(max_new_tokens=7).text == "a?b"
    server.answers.clear()
    server.say(None)
    session = open_session(server)
    assert session.act(max_new_tokens=7).text == ""


def test_an_endpoint_must_be_http():
    with pytest.raises(AgentsError, match="http"):
        Endpoint(base_url="file:///etc/passwd", model="m")


@pytest.mark.parametrize("arguments", ['{"command": "ls"}', {"command": "ls"}])
def test_calls_that_the_server_took_out_of_the_text_are_put_back(server, arguments):
    call = {"function": {"name": "execute_bash", "arguments": arguments}}
    message = {"content": "I look.", "tool_calls": [call]}
    choice = {"message": message, "finish_reason": "tool_calls"}
    server.answers.append((200, json.dumps({"choices": [choice]}).encode()))
    session = ChatPolicy(Endpoint(base_url=server.url, model="m")).open(
        [Message(role="user", content="go")], max_context_tokens=1000
    )
    reply = session.act(max_new_tokens=10)
    assert reply.text.startswith("I look.\n\n<tool_call>")
    assert OPENHANDS.actions.read(reply.text) == "ls"
