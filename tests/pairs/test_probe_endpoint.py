"""The probe against a real HTTP server, with and without letter log-probabilities."""

from __future__ import annotations

import base64
import io
import json

import pandas
import pytest
from PIL import Image
from typer.testing import CliRunner

from contextrl.pairs.errors import JudgeError
from contextrl.pairs.images import ImageStore, pixel_digest
from contextrl.pairs.probe_endpoint import sampled_margin
from contextrl.pairs.probe_tables import histogram
from contextrl.pairs.store import read_image_pairs, write_pairs
from contextrl.scripts.cli import _probe
from contextrl.scripts.cli_mine import app as mine

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


def test_a_refused_pair_is_left_out_and_the_others_are_asked(chat_server, folder):
    with chat_server(reads) as server:
        server.faults.append("400")
        report = json.loads(ask(server, folder, "--json"))
        assert (len(report["prompts"]), report["over_budget"]) == (2, 1)
        assert report["accuracy"]["mean"] == 1.0
        server.faults.extend(["400"] * 4)
        command = ["--pairs", str(folder), "--model", "m", "--base-url", server.url]
        result = CliRunner().invoke(_probe(), command)
    assert isinstance(result.exception, JudgeError)
    assert "no prompt got an answer" in str(result.exception)


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


def shown(content):
    """(images, text) of a message; every image a PNG in RGB."""
    assert isinstance(content, list)
    images = []
    for part in content:
        if part["type"] == "image_url":
            head, file = part["image_url"]["url"].split(",")
            assert head == "data:image/png;base64"
            images.append(Image.open(io.BytesIO(base64.b64decode(file))))
            assert images[-1].mode == "RGB"
    return images, "<image>".join(part["text"] for part in content if part["type"] == "text")


class Seer:
    """A model that sees: it knows of each couple of images which one an answer is true of."""

    def __init__(self, folder):
        store = ImageStore(folder)
        self.true_of = {}
        for pair in read_image_pairs(folder):
            digests = [
                pixel_digest(store.open(side.image)) for side in (pair.positive, pair.negative)
            ]
            self.true_of[frozenset(digests), pair.answer] = digests[0]

    def __call__(self, content):
        images, text = shown(content)
        digests = [pixel_digest(image) for image in images]
        answer = text.split("Answer: ")[1].splitlines()[0]
        return "A" if self.true_of[frozenset(digests), answer] == digests[0] else "B"


@pytest.fixture
def scenes(tmp_path):
    out = tmp_path / "scenes"
    drawn = ["scenes", "--families", "dice,pie", "--n", "4", "--side", "56", "--out", str(out)]
    assert CliRunner().invoke(mine, drawn).exit_code == 0
    return out


def test_pairs_of_images_are_asked_in_both_orders(chat_server, scenes, tmp_path):
    sees = Seer(scenes)
    with chat_server(sees) as server:
        report = json.loads(ask(server, scenes, "--json"))
        content = server.prompts[0]
        kinds = [part["type"] for part in content]
        server.letters = lambda prompt: {sees(prompt): -0.2, "C": -3.2}
        margins = json.loads(ask(server, scenes, "--json", "--plot", str(tmp_path / "plot.png")))
        server.letters, server.reply = None, lambda prompt: "The answer is A."
        biased = json.loads(ask(server, scenes, "--json", "--samples", "3", "--limit", "2"))
        text = ask(server, scenes)
    assert report["accuracy"]["mean"] == 1.0
    assert len(report["prompts"]) == 8
    assert kinds == ["text", "image_url", "text", "image_url", "text"]
    assert content[0]["text"].endswith("Option A: ")
    assert content[2]["text"].strip() == "Option B:"
    assert content[4]["text"].endswith("\nOutput A or B directly.")
    assert [each["margin"] for each in margins["prompts"]] == pytest.approx([3.0] * 8)
    assert (biased["accuracy"]["mean"], biased["share_a"], len(biased["prompts"])) == (0.5, 1, 4)
    assert [group["name"] for group in report["tables"]["by_domain"]] == ["dice", "pie"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "published multimodal accuracies" in text
    assert "Qwen3-VL-8B after ContextRL" in text


def test_released_rows_with_foreign_files_are_asked_and_broken_ones_left_out(
    chat_server, tmp_path, caplog
):
    def file(mode, size, kind):
        out = io.BytesIO()
        Image.new(mode, size).save(out, kind)
        return {"bytes": out.getvalue(), "path": None}

    good = file("RGB", (30, 20), "PNG")
    rows = [
        (
            [file("CMYK", (40, 20), "JPEG"), file("P", (20, 20), "GIF")],
            "<image>\n<image>Which?",
            "B",
        ),
        ([file("RGB", (3000, 1000), "PNG"), good], "First <image> then <image> which?", "B"),
        ([good, {"bytes": b"GIF89a", "path": None}], "<image><image>Which?", "A"),
        ([good, good], "One mark: <image>. Which?", "A"),
        ([good], "<image>What?", "red"),  # a question, no pair
    ]
    names = ("images", "problem", "answer")
    pandas.DataFrame(rows, columns=names).to_parquet(tmp_path / "set.parquet")
    with chat_server(lambda content: "B") as server:
        report = json.loads(ask(server, tmp_path / "set.parquet", "--json"))
        sizes = [[image.size for image in shown(prompt)[0]] for prompt in server.prompts]
    assert (report["accuracy"]["mean"], report["accuracy"]["n"], report["over_budget"]) == (1, 2, 2)
    assert report["style"] == "released-file"
    assert sorted(sizes) == [[(40, 20), (20, 20)], [(1735, 578), (30, 20)]]
    assert "left out: set.parquet:2: expected a whole image file" in caplog.text
    assert "left out: set.parquet:3: expected one <image> for each of its 2 images" in caplog.text
