"""The probe against a real HTTP server, with and without letter log-probabilities."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from contextrl.pairs.probe_endpoint import sampled_margin
from contextrl.pairs.probe_tables import histogram
from contextrl.pairs.store import write_pairs
from contextrl.scripts.cli import _probe

pytest.importorskip("litellm")


def reads(prompt: str) -> str:
    """A model that looks the removed line up: the option that shows it."""
    removed = next(
        line[1:].strip()
        for line in prompt.split("===== Patch =====")[1].splitlines()
        if line.startswith("-") and not line.startswith("---")
    )
    return "A" if removed in prompt.split("===== Option B =====")[0] else "B"


def ask(server, folder, *more):
    run = CliRunner()
    model = ["--model", "m", "--base-url", server.url]
    result = run.invoke(_probe(), ["--pairs", str(folder), *model, *more])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folder(make, tmp_path):
    write_pairs(tmp_path / "pairs", make.mined(), miner="m", seed=0)
    return tmp_path / "pairs"


def test_a_server_that_reads_is_told_from_one_that_likes_a_letter(chat_server, folder):
    with chat_server(reads) as server:
        report = json.loads(ask(server, folder, "--json"))
        assert report["accuracy"]["mean"] == 1.0
        assert len(server.prompts) == 4  # both orders of two pairs
        server.reply = lambda prompt: "A"
        biased = json.loads(ask(server, folder, "--json"))
    assert biased["accuracy"]["mean"] == 0.5
    assert (biased["share_a"], biased["accuracy_when_a"], biased["accuracy_when_b"]) == (1, 1, 0)


def test_log_probabilities_are_used_where_the_server_gives_them(chat_server, folder, tmp_path):
    with chat_server(lambda prompt: "neither") as server:
        server.letters = lambda prompt: (
            {"A": -0.1, " B": -2.1, "x": -5.0} if reads(prompt) == "A" else {"B": -0.1, "x": -4.1}
        )
        report = json.loads(ask(server, folder, "--json", "--plot", str(tmp_path / "plot.png")))
        text = ask(server, folder)
    margins = sorted(each["margin"] for each in report["prompts"])
    assert margins == pytest.approx([2.0, 2.0, 4.0, 4.0])
    assert report["tables"]["by_domain"][0]["name"] == "someone/shapes"
    assert report["tables"]["histogram"]["[2, 5)"] == 4
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "m (this run)" in text
    assert "GPT-5.4" in text


def test_margins_from_samples_and_their_histogram():
    assert sampled_margin(["A", "Answer: A", "B"]) > 0
    assert sampled_margin(["A or B?", "neither"]) == 0
    assert histogram([-9, 0, 0.2, 7])["[0, 0.5)"] == 2
    assert sum(histogram([-9, 0, 0.2, 7]).values()) == 4
