"""What is sent to an endpoint, to whom the key goes, and what litellm knows of prices."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from contextrl.pairs.endpoints import EndpointSettings, LiteLLMEndpoint
from contextrl.pairs.errors import JudgeError, RefusedError
from contextrl.pairs.image_endpoint import ImageEndpointSettings, LiteLLMImageEndpoint
from contextrl.pairs.store import write_pairs
from contextrl.scripts.cli_mine import app
from contextrl.scripts.console import ScriptError

litellm = pytest.importorskip("litellm")


@pytest.fixture
def server(chat_server, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with chat_server(lambda prompt: '{"verdict": "VALID", "reason": "so"}') as running:
        yield running


def endpoint(server, model, **changes):
    settings = EndpointSettings(
        model=model, base_url=server.url, api_key="none", tries=1, first_pause_s=0.0, **changes
    )
    return LiteLLMEndpoint(settings)


@pytest.mark.parametrize("model", ["gpt-5", "openai/gpt-5-mini", "o4-mini"])
def test_a_reasoning_model_is_asked_without_a_temperature(server, model):
    reply = endpoint(server, model).ask("hi", max_tokens=50)
    assert "VALID" in reply.whole_text()
    assert "temperature" not in server.asked[0]
    assert server.asked[0]["max_completion_tokens"] == 50


def test_other_models_get_temperature_0_unless_none_is_wanted(server):
    endpoint(server, "openai/unknown").ask("hi", max_tokens=5)
    endpoint(server, "openai/unknown", temperature=None).ask("hi", max_tokens=5)
    assert [each.get("temperature", "none") for each in server.asked] == [0, "none"]


def test_a_cut_off_reply_is_no_whole_text_and_still_readable(server):
    server.finish = "length"
    reply = endpoint(server, "openai/m").ask("hi", max_tokens=5)
    assert reply.text
    with pytest.raises(RefusedError, match="cut off at 5 tokens"):
        reply.whole_text()


def test_a_model_that_no_provider_has_is_said_before_anything_is_asked():
    with pytest.raises(JudgeError, match="expected a model as litellm names it"):
        LiteLLMEndpoint(EndpointSettings(model="nobody/m"))


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("GEMINI_API_KEY", "gem")
    monkeypatch.setenv("MINE", "sk-mine")


@pytest.fixture
def judge(make, tmp_path, keys):
    write_pairs(tmp_path / "pairs", make.mined(), miner="m", seed=0)

    def run(*more: str):
        ask = ["judge", str(tmp_path / "pairs"), "--out", str(tmp_path / "out"), "--tries", "1"]
        return CliRunner().invoke(app, [*ask, "--overwrite", *more])

    return run


def test_a_named_server_gets_a_key_only_if_one_is_named_for_it(server, judge):
    ask = ["--model", "openai/m", "--base-url", server.url]
    assert judge(*ask).exit_code == 0
    assert set(server.keys) == {"Bearer none"}
    server.keys.clear()
    assert judge(*ask[:1], "openai/other", *ask[2:], "--api-key-env", "MINE").exit_code == 0
    assert set(server.keys) == {"Bearer sk-mine"}
    unset = judge(*ask, "--api-key-env", "NOT_SET").exception
    assert isinstance(unset, ScriptError)
    assert "NOT_SET" in str(unset)


def test_the_key_of_one_provider_does_not_go_to_another(judge, monkeypatch, tmp_path):
    """At the last place before litellm picks the provider's own variable: no network here."""
    sent = {}

    def complete(**asked):
        sent[asked["model"]] = asked["api_key"]
        raise litellm.exceptions.AuthenticationError("no", "provider", "model")

    def draw(**asked):
        sent[asked["model"]] = asked["api_key"]
        raise litellm.exceptions.AuthenticationError("no", "provider", "model")

    monkeypatch.setattr(litellm, "completion", complete)
    monkeypatch.setattr(litellm, "image_edit", draw)
    assert isinstance(judge("--model", "gemini/gemini-2.5-pro").exception, JudgeError)
    assert isinstance(judge("--model", "gpt-4.1").exception, JudgeError)
    editor = LiteLLMImageEndpoint(ImageEndpointSettings(model="gemini/gemini-2.5-flash-image"))
    with pytest.raises(JudgeError):
        editor.edit(b"", "x", None)
    assert sent == {
        "gemini/gemini-2.5-pro": None,
        "gpt-4.1": None,
        "gemini/gemini-2.5-flash-image": None,
    }


def test_what_litellm_knows_of_prices_is_used_and_the_rest_is_not_taken_for_free():
    def price(model: str) -> float | None:
        return LiteLLMImageEndpoint(ImageEndpointSettings(model=model)).estimate(1024, 1024)

    assert price("gemini/gemini-2.5-flash-image") == pytest.approx(0.039)
    assert price("vertex_ai/imagen-3.0-capability-001") == pytest.approx(0.04)
    # 4,160 tokens at high quality, at $40 a million, and the image that is shown.
    assert 0.16 < price("gpt-image-1") < 0.20
    assert price("openai/unknown") is None
    chat = LiteLLMEndpoint(EndpointSettings(model="openai/unknown"))
    assert chat.cost(1000, 1000) is None
    own = EndpointSettings(model="openai/unknown", usd_per_million_in=0.0)
    assert LiteLLMEndpoint(own).cost(1000, 1000) == 0
    assert LiteLLMEndpoint(EndpointSettings(model="gpt-4.1")).cost(10**6, 0) == pytest.approx(2.0)
