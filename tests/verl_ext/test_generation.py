"""Continuous batching says what a plain forward pass says, however requests interleave."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM

from contextrl.verl_ext.generation import GenerationEngine, SamplingParams
from contextrl.verl_ext.lean_decoder import LeanDecoder

VOCAB = 1000


@pytest.fixture(scope="module")
def model(random_model):
    return AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32)


def plain_logprobs(model, prompt_ids, token_ids, temperature=1.0):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt_ids, *token_ids]])).logits[0]
    logp = (logits / temperature).log_softmax(-1)
    return [logp[len(prompt_ids) - 1 + i, token].item() for i, token in enumerate(token_ids)]


def ids(rng, n):
    return [rng.randrange(VOCAB) for _ in range(n)]


def converse(engine, model, seed):
    """Three turns of one session; the largest difference from a plain forward pass."""
    rng = random.Random(seed)
    prompt, worst = ids(rng, rng.randint(3, 60)), 0.0
    for _ in range(3):
        params = SamplingParams(max_new_tokens=rng.randint(1, 20))
        done = engine.generate(prompt, params, session_id=str(seed))
        expected = plain_logprobs(model, prompt, done.token_ids)
        pairs = zip(done.logprobs, expected, strict=True)
        worst = max([worst, *(abs(a - b) for a, b in pairs)])
        prompt = prompt + done.token_ids + ids(rng, rng.randint(1, 30))
    return worst


def test_interleaved_conversations_get_the_logprobs_of_a_plain_forward(model):
    with (
        GenerationEngine(model, max_rows=6, max_length=256) as engine,
        ThreadPoolExecutor(9) as pool,
    ):
        worst = list(pool.map(lambda seed: converse(engine, model, seed), range(18)))
    assert max(worst) < 1e-4


def group(engine, model, seed, place):
    """One of several sessions that begin with one prompt and then go their own ways."""
    rng = random.Random(seed)
    prompt, worst = ids(rng, 40), 0.0
    rng = random.Random(f"{seed} {place}")
    for _ in range(2):
        done = engine.generate(
            prompt, SamplingParams(max_new_tokens=rng.randint(1, 9)), session_id=f"{seed} {place}"
        )
        pairs = zip(done.logprobs, plain_logprobs(model, prompt, done.token_ids), strict=True)
        worst = max([worst, *(abs(a - b) for a, b in pairs)])
        prompt = prompt + done.token_ids + ids(rng, rng.randint(1, 20))
    return worst


@pytest.mark.parametrize("max_rows", [3, 16])
def test_sessions_with_one_prompt_get_the_logprobs_of_a_plain_forward(model, max_rows):
    places = [(seed, place) for _ in range(2) for seed in range(4) for place in range(6)]
    with (
        GenerationEngine(model, max_rows=max_rows, max_length=128) as engine,
        ThreadPoolExecutor(9) as pool,
    ):
        worst = list(pool.map(lambda one: group(engine, model, *one), places))
    assert max(worst) < 1e-4


def test_a_prompt_that_is_sampled_eight_times_is_computed_once(model):
    prompt, params = list(range(20)), SamplingParams(max_new_tokens=3)
    with GenerationEngine(model, max_rows=8, max_length=64, seed=3) as engine:
        computed, window = [], engine.cache.window
        engine.cache.window = lambda rows, starts, new_tokens: (
            computed.append(new_tokens),
            window(rows, starts, new_tokens),
        )
        futures = [engine.submit(prompt, params, session_id=str(n)) for n in range(8)]
        replies = {tuple(future.result(30).token_ids) for future in futures}
        assert [tokens for tokens in computed if tokens > 1] == [20]
        engine.call(lambda: None)  # as after a weight sync
        engine.generate(prompt, params, session_id="9")
        assert [tokens for tokens in computed if tokens > 1] == [20, 20]
    assert len(replies) > 1


@pytest.mark.parametrize("lean", [True, False])
def test_the_lean_pass_and_the_models_own_say_the_same(model, monkeypatch, lean):
    if not lean:
        monkeypatch.setattr(LeanDecoder, "of", lambda _: None)
    with GenerationEngine(model, max_rows=4, max_length=256) as engine:
        assert (engine._last_logits.lean is not None) == lean
        assert max(converse(engine, model, seed) for seed in range(3)) < 1e-4


def test_more_sessions_than_rows_all_get_their_answer(model):
    with GenerationEngine(model, max_rows=2, max_length=64) as engine:
        futures = [
            engine.submit([5, 6, n], SamplingParams(max_new_tokens=4), session_id=str(n))
            for n in range(20)
        ]
        assert [len(future.result(30).token_ids) for future in futures] == [4] * 20


def test_greedy_is_the_argmax_and_reports_unscaled_logprobs(model):
    with GenerationEngine(model, max_rows=1, max_length=64) as engine:
        params = SamplingParams(max_new_tokens=5, temperature=0.0)
        done = engine.generate([1, 2, 3], params, session_id="a")
    with torch.no_grad():
        sequence = [1, 2, 3]
        for token in done.token_ids:
            assert model(torch.tensor([sequence])).logits[0, -1].argmax().item() == token
            sequence.append(token)
    assert done.logprobs == pytest.approx(
        plain_logprobs(model, [1, 2, 3], done.token_ids), abs=1e-5
    )


def test_sampling_follows_the_temperature(model):
    with GenerationEngine(model, max_rows=32, max_length=16, seed=1) as engine:
        params = SamplingParams(max_new_tokens=1, temperature=0.7)
        futures = [engine.submit([7, 8], params, session_id=str(n)) for n in range(2000)]
        first = [future.result(60).token_ids[0] for future in futures]
    with torch.no_grad():
        probs = (model(torch.tensor([[7, 8]])).logits[0, -1] / 0.7).softmax(-1)
    top = probs.topk(200).indices
    share = sum(token in set(top.tolist()) for token in first) / len(first)
    assert share == pytest.approx(probs[top].sum().item(), abs=0.05)


def test_a_stop_token_ends_the_reply_and_is_part_of_it(model):
    with GenerationEngine(model, max_rows=1, max_length=64, seed=0) as engine:
        everything = frozenset(range(VOCAB))
        params = SamplingParams(max_new_tokens=9, stop_token_ids=everything)
        done = engine.generate([1, 2], params, session_id="a")
    assert (len(done.token_ids), done.finished) == (1, True)


def test_new_weights_are_used_and_old_caches_forgotten(model, random_model):
    other = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    serving = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32)
    with GenerationEngine(serving, max_rows=1, max_length=64) as engine:
        params = SamplingParams(max_new_tokens=4)
        first = engine.generate([1, 2, 3], params, session_id="a")
        prompt = [1, 2, 3, *first.token_ids, 9]
        engine.call(lambda: serving.load_state_dict(other.state_dict()))
        done = engine.generate(prompt, params, session_id="a")
    assert done.logprobs == pytest.approx(plain_logprobs(other, prompt, done.token_ids), abs=1e-4)


def test_a_request_that_cannot_fit_is_refused_and_the_others_go_on(model):
    with GenerationEngine(model, max_rows=1, max_length=16) as engine:
        with pytest.raises(ValueError, match="within 16 tokens, got 10 \\+ 7"):
            engine.generate(list(range(10)), SamplingParams(max_new_tokens=7), session_id="a")
        params = SamplingParams(max_new_tokens=6)
        done = engine.generate(list(range(10)), params, session_id="b")
        assert len(done.token_ids) == 6


def test_an_error_inside_fails_the_requests_and_not_the_engine(model, monkeypatch):
    with GenerationEngine(model, max_rows=1, max_length=16) as engine:
        window = engine.cache.window
        monkeypatch.setattr(engine.cache, "window", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.generate([1], SamplingParams(max_new_tokens=2), session_id="a")
        monkeypatch.setattr(engine.cache, "window", window)
        done = engine.generate([1], SamplingParams(max_new_tokens=2), session_id="a")
        assert len(done.token_ids) == 2


def test_closing_fails_what_is_still_waiting(model):
    engine = GenerationEngine(model, max_rows=1, max_length=4000)
    future = engine.submit([1], SamplingParams(max_new_tokens=3000), session_id="a")
    closer = threading.Thread(target=engine.close)
    closer.start()
    with pytest.raises(RuntimeError, match="closed"):
        future.result(30)
    closer.join(10)
