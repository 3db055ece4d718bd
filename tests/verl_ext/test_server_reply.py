"""What comes of an episode whose inference server dies, hangs, or cuts its replies."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
import ray

from contextrl.agents.errors import ContextFullError, PolicyError
from contextrl.agents.tokens import TokenPolicy
from contextrl.agents.types import Message
from contextrl.verl_ext import server_reply
from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.sampling import check_sampling
from contextrl.verl_ext.scorer_hf import load_tokenizer
from contextrl.verl_ext.server_reply import NO_ROOM, ServerManagerTokens

END = 2


class Manager:
    """veRL's client of a server that does what `answer(prompt_ids, max_tokens)` does."""

    def __init__(self, answer):
        self._answer = answer

    async def generate(self, request_id, prompt_ids, sampling_params):
        answer = self._answer(prompt_ids, sampling_params["max_tokens"])
        return await answer if asyncio.iscoroutine(answer) else answer


def output(n_tokens, *, token=50, stop_reason="completed", **fields):
    ids = [token] * n_tokens
    return SimpleNamespace(
        token_ids=ids, log_probs=[-1.0] * n_tokens, stop_reason=stop_reason, extra_fields=fields
    )


@pytest.fixture(scope="module")
def loop():
    """veRL's, which runs in another thread than episodes do."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever, daemon=True)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture
def served(loop):
    def make(answer, *, wall_clock_s=60.0):
        return ServerManagerTokens(
            Manager(answer), {}, loop, special_ids={0, 1, END}, wall_clock_s=wall_clock_s
        )

    return make


def raising(error):
    def answer(prompt_ids, max_tokens):
        raise error

    return answer


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.RayActorError(),
        ray.exceptions.RayTaskError("generate", "a traceback", ValueError("out of memory")),
        ValueError("out of memory"),
        AssertionError("max_tokens"),
        ConnectionResetError("by peer"),
    ],
)
def test_a_failed_server_is_a_policy_error_in_one_line(served, error):
    with pytest.raises(PolicyError, match="inference server failed") as caught:
        served(raising(error)).generate([5], max_new_tokens=4, session_id="s")
    assert "\n" not in str(caught.value)
    assert "traceback" not in str(caught.value)


def test_a_bug_of_our_own_is_no_failure_of_the_server(served):
    with pytest.raises(TypeError):
        served(raising(TypeError("a bug"))).generate([5], max_new_tokens=4, session_id="s")


def test_a_server_that_hangs_does_not_outlive_the_episode(served, monkeypatch):
    monkeypatch.setattr(server_reply, "GRACE_S", 0.05)
    hanging = served(lambda *_: asyncio.sleep(60), wall_clock_s=0.1)
    with pytest.raises(PolicyError, match="within 0 s"):
        hanging.generate([5], max_new_tokens=4, session_id="s")


def test_the_time_that_is_left_counts_from_the_first_reply(served, monkeypatch):
    monkeypatch.setattr(server_reply, "GRACE_S", 3.0)
    now, waited = [100.0], []
    monkeypatch.setattr(server_reply.time, "monotonic", lambda: now[0])
    server = served(lambda *_: output(1), wall_clock_s=10.0)

    async def noted(manager, *, timeout_s, **request):
        waited.append(timeout_s)
        return output(1, token=END)

    monkeypatch.setattr(server_reply, "server_reply", noted)
    for seconds in (0.0, 4.0, 50.0):
        now[0] = 100.0 + seconds
        server.generate([5], max_new_tokens=4, session_id="s")
    assert waited == [13.0, 9.0, 3.0]


@pytest.mark.parametrize("stop_reason", ["aborted", "abort"])
def test_a_request_that_was_given_up_is_a_policy_error(served, stop_reason):
    answer = output(2, stop_reason=stop_reason)
    with pytest.raises(PolicyError, match="gave its request up"):
        served(lambda *_: answer).generate([5], max_new_tokens=4, session_id="s")


def session_of(served, random_model, context, *, reply_tokens):
    """Of a server with a shorter context than the episode's, as veRL's vLLM clamps replies."""
    tokenizer = load_tokenizer(str(random_model))
    token = tokenizer.encode("x")[0]

    def vllm(prompt_ids, max_tokens):
        room = context - len(prompt_ids)
        if room < 1:
            raise ValueError(f"Prompt length ({len(prompt_ids)}) {NO_ROOM} within {context}.")
        reply = min(max_tokens, room, reply_tokens)
        found = output(reply, token=token)
        if reply == reply_tokens:
            found.token_ids[-1] = tokenizer.eos_token_id
        return found

    server = served(vllm)
    server._special_ids = frozenset(tokenizer.all_special_ids)
    messages = [Message(role="user", content="hi")]
    return TokenPolicy("a", server, tokenizer).open(messages, max_context_tokens=500)


def test_a_reply_that_the_server_cut_is_truncated_and_the_next_finds_the_context_full(
    served, random_model
):
    session = session_of(served, random_model, context=60, reply_tokens=99)
    reply = session.act(max_new_tokens=96)
    assert len(reply.token_ids) < 60
    assert reply.truncated
    session.observe("ran")
    with pytest.raises(ContextFullError, match="cut the last reply"):
        session.act(max_new_tokens=96)


def test_an_observation_that_the_server_has_no_room_for_fills_the_context(served, random_model):
    session = session_of(served, random_model, context=60, reply_tokens=5)
    assert not session.act(max_new_tokens=96).truncated
    session.observe("x" * 80)
    with pytest.raises(ContextFullError, match=NO_ROOM):
        session.act(max_new_tokens=96)


def test_a_first_prompt_that_the_server_has_no_room_for_is_nobodys_doing(served, random_model):
    session = session_of(served, random_model, context=3, reply_tokens=5)
    with pytest.raises(PolicyError, match=NO_ROOM):
        session.act(max_new_tokens=96)


@pytest.mark.parametrize(
    ("reply", "finished"),
    [
        (output(4), None),  # as many as asked for: the session knows that it is cut
        (output(2, token=END), None),
        (output(2, token=0), None),  # another stop token than the template's
        (output(2), False),
        (output(2, token=END, stop_reason="length"), False),
    ],
)
def test_what_a_reply_says_of_its_end(served, reply, finished):
    given = served(lambda *_: reply).generate([5], max_new_tokens=4, session_id="s")
    assert given.finished is finished


@pytest.mark.parametrize(
    "asked", [{"top_p": 0.95}, {"top_k": 20, "top_p": 1.0}, {"repetition_penalty": 1.1}]
)
def test_sampling_that_the_engine_does_not_do_is_refused_in_one_line(asked):
    with pytest.raises(ConfigError, match=r"rollout\.name=hf") as caught:
        check_sampling(asked)
    assert "\n" not in str(caught.value)


def test_sampling_from_the_whole_vocabulary_is_fine():
    check_sampling({"temperature": 0.5, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0})
