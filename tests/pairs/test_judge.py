"""The judge against a real HTTP endpoint that fails, stalls and limits its rate."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from contextrl.pairs.endpoints import EndpointSettings, LiteLLMEndpoint
from contextrl.pairs.errors import EndpointBusyError, JudgeError, PairFileError
from contextrl.pairs.judge import (
    JudgeCache,
    JudgeSettings,
    bill,
    judge,
    judge_prompt,
)
from contextrl.pairs.store import read_manifest, read_pairs, write_pairs
from contextrl.pairs.verdicts import JudgeVerdict, read_verdict
from contextrl.scripts.cli_mine import app
from contextrl.scripts.console import ScriptError

pytest.importorskip("litellm")


def verdict(word: str) -> str:
    return json.dumps({"verdict": word, "reason": "because"})


@pytest.fixture
def server(chat_server, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with chat_server(lambda prompt: verdict("VALID")) as running:
        yield running


def endpoint(server, pauses=None, **changes):
    fields = {
        "model": "openai/judge",
        "base_url": server.url,
        "api_key": "none",
        "timeout_s": 1.0,
        "tries": 4,
        "first_pause_s": 0.0,
        "usd_per_million_in": 10.0,
        "usd_per_million_out": 100.0,
    }
    sleep = (lambda s: pauses.append(s)) if pauses is not None else (lambda s: None)
    return LiteLLMEndpoint(EndpointSettings(**{**fields, **changes}), sleep=sleep)


def test_every_pair_is_judged_and_the_bill_is_summed(server, make, tmp_path):
    pairs = make.mined()
    report = judge(pairs, endpoint(server), JudgeCache(tmp_path))
    assert report.ids(JudgeVerdict.VALID) == {pair.pair_id for pair in pairs}
    assert (report.prompt_tokens, report.completion_tokens) == (200, 20)
    assert report.paid_usd == pytest.approx(2 * (100 * 10 + 10 * 100) / 1e6)
    shown = server.prompts[0]
    assert "The key says" in shown
    assert "test_low fails" in shown


def test_what_was_judged_is_not_paid_twice(server, make, tmp_path):
    pairs = make.mined()
    judge(pairs[:1], endpoint(server), JudgeCache(tmp_path))  # as if killed after one
    report = judge(pairs, endpoint(server), JudgeCache(tmp_path))
    assert (len(server.prompts), report.from_cache) == (2, 1)
    assert report.paid_usd == pytest.approx(0.002)
    due = bill(pairs, endpoint(server), JudgeCache(tmp_path), JudgeSettings())
    assert (due.to_ask, due.cached, due.usd) == (0, 2, 0)
    for other in (
        endpoint(server, model="openai/other"),
        endpoint(server, base_url="http://127.0.0.1:1/v1"),
    ):
        due = bill(pairs, other, JudgeCache(tmp_path), JudgeSettings(max_reply_tokens=100))
        assert due.to_ask == 2
        assert due.usd == pytest.approx((due.prompt_tokens * 10 + 200 * 100) / 1e6)


@pytest.mark.parametrize("faults", [["500", "503"], ["429 7"], ["stall"]])
def test_what_may_pass_is_tried_again(server, make, tmp_path, faults):
    server.faults.extend(faults)
    pauses: list[float] = []
    one = make.mined()[:1]
    report = judge(one, endpoint(server, pauses), JudgeCache(tmp_path))
    assert report.ids(JudgeVerdict.VALID)
    assert len(server.prompts) == len(faults) + 1
    assert len(pauses) == len(faults)
    if faults == ["429 7"]:
        assert pauses == [7.0]  # what the server asked for


def test_a_pair_that_cannot_be_asked_has_no_verdict_and_is_asked_next_time(server, make, tmp_path):
    server.faults.extend(["500"] * 4)
    pairs = make.mined()
    settings = JudgeSettings(concurrency=1)
    report = judge(pairs, endpoint(server), JudgeCache(tmp_path), settings)
    assert [each.pair_id for each in report.unjudged] == [pairs[0].pair_id]
    assert report.unasked == 1
    assert report.ids(JudgeVerdict.VALID) == {pairs[1].pair_id}
    (why,) = report.failures
    assert "4 tries failed" in why
    again = judge(pairs, endpoint(server), JudgeCache(tmp_path), settings)
    assert again.unjudged == ()
    assert again.from_cache == 1


def test_a_refusal_stops_at_once(server, make, tmp_path):
    server.faults.extend(["401"] * 9)
    with pytest.raises(JudgeError, match="refuses") as caught:
        judge(make.mined(), endpoint(server), JudgeCache(tmp_path), JudgeSettings(concurrency=1))
    assert not isinstance(caught.value, EndpointBusyError)
    assert len(server.prompts) <= 2


@pytest.mark.parametrize("fault", ["400", "413", "422"])
def test_a_refused_pair_is_listed_and_the_others_are_judged(server, make, tmp_path, fault):
    server.faults.append(fault)
    pairs = make.mined()
    settings = JudgeSettings(concurrency=1)
    report = judge(pairs, endpoint(server), JudgeCache(tmp_path), settings)
    (refused,) = report.unjudged
    assert (refused.pair_id, refused.passing) == (pairs[0].pair_id, False)
    assert "refused" in refused.reason
    assert report.ids(JudgeVerdict.VALID) == {pairs[1].pair_id}
    server.faults.append("400")
    again = judge(pairs, endpoint(server), JudgeCache(tmp_path), settings)
    assert (len(again.unjudged), again.from_cache) == (1, 1)  # asked again: it was not kept


def test_a_reply_that_is_cut_off_is_paid_for_and_not_kept(server, make, tmp_path):
    pairs, cache = make.mined(), JudgeCache(tmp_path)
    server.finish = "length"
    report = judge(pairs, endpoint(server), cache)
    assert "cut off at 2000 tokens" in report.unjudged[0].reason
    assert report.paid_usd == pytest.approx(0.004)
    server.finish = "stop"
    assert len(judge(pairs, endpoint(server), cache).judgements) == 2


def test_nothing_but_refusals_is_the_endpoints_fault(server, make, tmp_path):
    server.faults.extend(["400"] * 9)
    settings = JudgeSettings(concurrency=1, most_refusals=2)
    with pytest.raises(JudgeError, match="first 2 questions got no answer"):
        judge(make.mined(), endpoint(server), JudgeCache(tmp_path), settings)


def test_a_partial_judgement_goes_on_by_the_same_command(server, make, tmp_path):
    write_pairs(tmp_path / "pairs", make.mined(), miner="m", seed=0)
    out = tmp_path / "judged"
    ask = ["judge", str(tmp_path / "pairs"), "--model", "openai/judge", "--base-url", server.url]
    ask += ["--out", str(out), "--tries", "1", "--concurrency", "1"]
    run = CliRunner()
    server.faults.append("500")
    half = run.invoke(app, ask)
    assert half.exit_code == 1
    assert "run the same command again" in str(half.exception)
    assert (read_manifest(out).n_pairs, read_manifest(out).unasked) == (1, 1)
    assert "1 tries failed" in (out / "unjudged.jsonl").read_text()
    server.faults.append("400")
    whole = run.invoke(app, ask)
    assert whole.exit_code == 0, whole.output  # a refusal is an outcome
    assert "1 without a verdict" in whole.stdout
    assert (read_manifest(out).n_pairs, read_manifest(out).unasked) == (1, 0)
    assert isinstance(run.invoke(app, ask).exception, PairFileError)
    # What is complete gives way to a complete set only.
    server.faults.append("500")
    failed = run.invoke(app, [*ask, "--overwrite"])
    assert "left alone" in str(failed.exception)
    assert read_manifest(out).unasked == 0
    assert run.invoke(app, [*ask, "--overwrite"]).exit_code == 0
    assert len(read_pairs(out)) == 2


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (verdict("INVALID"), JudgeVerdict.INVALID),
        (f"Let me think {{a}}.\n```json\n{verdict('valid')}\n```", JudgeVerdict.VALID),
        ("INVALID: the fix is readable", JudgeVerdict.INVALID),
        ("VALID or INVALID?", JudgeVerdict.UNCERTAIN),
        ("", JudgeVerdict.UNCERTAIN),
        ('{"verdict": "MAYBE"}', JudgeVerdict.UNCERTAIN),
    ],
)
def test_verdicts_are_read_from_what_models_write(reply, expected):
    assert read_verdict(reply)[0] is expected


def test_the_key_in_the_prompt_is_the_letter_of_the_supporting_run(make):
    for pair in make.mined():
        prompt = judge_prompt(pair, JudgeSettings())
        letter = prompt.split("The key says ")[1][0]
        shown = prompt.split(f"===== Option {letter} =====")[1].split("=====")[0]
        assert pair.positive.question in shown


def test_a_bill_beyond_the_budget_is_not_begun(server, make, tmp_path):
    write_pairs(tmp_path / "pairs", make.mined(), miner="m", seed=0)
    asked = ["judge", str(tmp_path / "pairs"), "--model", "openai/judge", "--base-url", server.url]
    asked += ["--out", str(tmp_path / "judged"), "--most-usd", "0.05"]
    priced = ["--usd-per-million-in", "1", "--usd-per-million-out"]
    server.reply = lambda prompt: verdict("VALID")
    for more, said in (([], "expected a known price"), ([*priced, "100"], "found up to \\$0.4")):
        error = CliRunner().invoke(app, [*asked, *more]).exception
        assert isinstance(error, ScriptError)
        assert re.search(said, str(error))
        assert server.prompts == []
    assert CliRunner().invoke(app, [*asked, *priced, "5"]).exit_code == 0
    assert len(read_pairs(tmp_path / "judged")) == 2


def test_judge_and_review_as_commands(server, make, tmp_path):
    first, second = pairs = make.mined()
    server.reply = lambda prompt: verdict("UNCERTAIN")
    write_pairs(tmp_path / "pairs", pairs, miner="m", seed=0)
    run = CliRunner()
    asked = ["judge", str(tmp_path / "pairs"), "--model", "openai/judge", "--base-url", server.url]
    out = tmp_path / "judged"
    dry = run.invoke(app, [*asked, "--dry-run"])
    assert "2 pairs to ask, 0 in the cache" in dry.output
    assert server.prompts == []
    result = run.invoke(app, [*asked, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "2 UNCERTAIN" in result.output
    assert read_pairs(out) == ()

    walk = ["review", str(out), "--pairs", str(tmp_path / "pairs")]
    stopped = run.invoke(app, walk, input="x\nv\nq\n")
    assert stopped.exit_code == 0, stopped.output
    assert "--- patch" in stopped.output
    assert "because" in stopped.output
    assert len(read_pairs(out)) == 1
    finished = run.invoke(app, walk, input="i\n")
    assert "1 of 1" in finished.output
    assert len(read_pairs(out)) == 1
    assert {first.pair_id, second.pair_id} > {read_pairs(out)[0].pair_id}
