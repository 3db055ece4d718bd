"""`contextrl mine scenes`, `mine images` and `mine edit` as commands."""

from __future__ import annotations

import base64
import json
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from typer.testing import CliRunner

from contextrl.pairs.errors import ImageError, PairFileError, PairsError
from contextrl.pairs.images import ImageStore, png_file
from contextrl.pairs.scenes import FAMILIES, draw_pair
from contextrl.pairs.store import is_partial, read_image_pairs, read_manifest
from contextrl.pairs.vqa import ReleasedImagePair
from contextrl.scripts.cli_mine import app
from contextrl.verl_ext.vqa_rows import VQARows

run = CliRunner()


def invoke(*arguments: object):
    return run.invoke(app, [str(each) for each in arguments])


def test_scenes_as_a_folder_and_as_a_sheet(tmp_path):
    out = tmp_path / "pairs"
    done = invoke("scenes", "--families", "dice,pie", "--n", 6, "--side", 56, "--out", out)
    assert done.exit_code == 0, done.output
    assert "6 pairs in" in done.stdout
    pairs = read_image_pairs(out)
    assert {pair.positive.image.width for pair in pairs} == {56}
    assert isinstance(invoke("scenes", "--n", 1, "--out", out).exception, PairFileError)
    wrong = invoke("scenes", "--families", "dices", "--out", tmp_path / "x").exception
    assert isinstance(wrong, PairsError)
    assert all(name in str(wrong) for name in FAMILIES)

    sheet = tmp_path / "sheet.png"
    assert invoke("scenes", "--sheet", sheet, "--families", "dice", "--hardest", 0.2).exit_code == 0
    with Image.open(sheet) as image:
        assert image.size[0] > image.size[1]


@pytest.fixture
def parquet(tmp_path):
    """As released: images as structs of bytes and path, problems with marks, answers; and pairs."""
    rows = []
    for family in ("bars", "clock", "table", "grid"):
        scene = draw_pair(family, 1, 0.5, side=140)
        for image, answer in (
            (scene.image_positive, scene.answer_positive),
            (scene.image_negative, scene.answer_negative),
        ):
            rows.append(([png_file(image)], f"<image>{scene.question}", answer))
    rows.append((rows[0][0] + rows[1][0], "<image><image>Which?", "A"))
    rows.append(([b"broken"], "<image>What?", "3"))
    table = pyarrow.table(
        {
            "images": [[{"bytes": file, "path": None} for file in files] for files, _, _ in rows],
            "problem": [problem for _, problem, _ in rows],
            "answer": [answer for _, _, answer in rows],
        }
    )
    path = tmp_path / "set.parquet"
    pyarrow.parquet.write_table(table, path)
    return path


def test_released_rows_become_train_and_held_out_pairs(parquet, tmp_path):
    out = tmp_path / "pairs"
    mine = ["images", parquet, "--embedder", "pixels", "--out", out, "--held-out-frac", 0.3]
    done = invoke(*mine)
    assert done.exit_code == 0, done.output
    assert "9/10" in done.stdout  # the row with two images is a pair already
    assert "1 rows left out: expected a whole image file" in done.stdout
    parts = {name: read_image_pairs(out / name) for name in ("train", "held-out")}
    assert {name: len(pairs) for name, pairs in parts.items()} == {"train": 4, "held-out": 4}
    for name, pairs in parts.items():
        store = ImageStore(out / name)
        assert len(list(store.folder.glob("*/*"))) == len(pairs)
        for pair in pairs:
            store.open(pair.positive.image)
            assert pair.provenance.source == "set"
    assert isinstance(invoke(*mine).exception, PairFileError)
    assert invoke(*mine, "--overwrite", "--limit", 2).exit_code == 0


def test_a_folder_of_rows_is_a_source_and_a_wrong_one_is_one_line(tmp_path):
    scene = draw_pair("dice", 1, 0.5)
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = []
    for name, image, answer in (
        ("a.png", scene.image_positive, scene.answer_positive),
        ("b.png", scene.image_negative, scene.answer_negative),
    ):
        (folder / name).write_bytes(png_file(image))
        lines.append(json.dumps({"images": [name], "problem": scene.question, "answer": answer}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    out = tmp_path / "pairs"
    done = invoke("images", folder, "--embedder", "pixels", "--out", out, "--json")
    assert json.loads(done.stdout)["n_pairs"] == 2
    gone = invoke(
        "images", tmp_path / "no.parquet", "--embedder", "pixels", "--out", tmp_path / "x"
    )
    assert isinstance(gone.exception, PairFileError)
    next((out / "images").glob("*/*")).unlink()
    pair, _ = read_image_pairs(out)
    shown = [side for side in (pair.positive, pair.negative) if side.image.sha256 not in left(out)]
    with pytest.raises(ImageError, match="found none"):
        ImageStore(out).open(shown[0].image)


def left(folder) -> set[str]:
    return {path.stem for path in (folder / "images").glob("*/*")}


def test_edit_prints_its_bill_without_asking(parquet, tmp_path):
    pytest.importorskip("litellm")
    ask = ["edit", parquet, "--chat-model", "openai/c", "--image-model", "openai/i"]
    server = [
        "--chat-base-url",
        "http://127.0.0.1:1/v1",
        "--image-base-url",
        "http://127.0.0.1:1/v1",
    ]
    prices = ["--usd-per-million-in", 1, "--usd-per-million-out", 10, "--usd-per-edit", 0.04]
    out = tmp_path / "pairs"
    done = invoke(*ask, *server, *prices, "--out", out, "--dry-run", "--limit", 4)
    assert done.exit_code == 0, done.output
    assert "at most 4 proposals and 4 verdicts" in done.stdout
    assert "at most 4 edits: $0.16" in done.stdout
    assert "in all: $" in done.stdout
    assert not out.exists()
    done = invoke(*ask, *server, "--out", out, "--dry-run")
    assert "10 rows: 8 to ask, 0 answered by what was paid before, 2 not usable" in done.stdout
    assert "no price for openai/c" in done.stdout
    wrong = invoke(*ask, *server, "--out", out, "--dry-run", "--image-sizes", "big")
    assert wrong.exit_code == 2
    # A server that is not there costs nothing and leaves no half set behind as a whole one.
    for _ in range(2):
        done = invoke(*ask, *server, "--out", out, "--limit", 1, "--tries", 1)
        assert done.exit_code == 1
        assert "run the same command again" in str(done.exception)
        assert is_partial(out)
        assert read_manifest(out).unasked == 1


def test_a_blank_line_costs_an_edit_its_row_and_not_the_run(tmp_path):
    pytest.importorskip("litellm")
    scene = draw_pair("dice", 1, 0.5)
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "a.png").write_bytes(png_file(scene.image_positive))
    line = json.dumps({"images": ["a.png"], "problem": scene.question, "answer": "1"})
    (folder / "rows.jsonl").write_text(f"{line}\n\n")
    ask = ["edit", folder, "--chat-model", "gpt-4.1", "--image-model", "gpt-image-1"]
    told = invoke(*ask, "--out", tmp_path / "pairs", "--dry-run")
    assert told.exit_code == 0, told.output
    assert "1 to ask" in told.stdout
    assert "1 not usable" in told.stdout
    assert "not known" not in told.stdout  # litellm knows both prices


def test_a_judge_that_sees_reads_pairs_of_images(chat_server, tmp_path, monkeypatch):
    pytest.importorskip("litellm")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    pairs, out = tmp_path / "pairs", tmp_path / "judged"
    invoke("scenes", "--families", "dice,pie,grid", "--n", 3, "--hardest", 0.0, "--out", pairs)
    seen = []

    def reply(content) -> str:
        *images, text = content
        seen.append([image["image_url"]["url"] for image in images])
        verdict = "VALID" if "die show" in text["text"] else "UNCERTAIN"
        if "largest" in text["text"]:
            verdict = "INVALID"
        return json.dumps({"verdict": verdict, "reason": "so"})

    with chat_server(reply) as server:
        ask = ["judge", pairs, "--model", "openai/j", "--base-url", server.url, "--out", out]
        assert "3 pairs to ask" in invoke(*ask, "--dry-run").stdout
        done = invoke(*ask)
        assert done.exit_code == 0, done.output
        again = invoke(*ask, "--overwrite")
    assert "3 from the cache" in again.stdout
    assert [len(urls) for urls in seen] == [2, 2, 2]
    (kept,) = read_image_pairs(out)
    assert kept.provenance.source == "dice"
    # The letter in the key is the place of the positive's image.
    images = [png_file(ImageStore(out).open(s.image)) for s in (kept.positive, kept.negative)]
    index = next(n for n, text in enumerate(map(str, server.prompts)) if "die show" in text)
    letter = str(server.prompts[index]).partition("is true of image ")[2][0]
    assert seen[index]["AB".index(letter)].endswith(base64.b64encode(images[0]).decode())

    done = run.invoke(app, ["review", str(out), "--pairs", str(pairs)], input="v\n")
    assert "What color is cell" in done.stdout
    assert "1 reviewed pairs were added" in done.stdout
    for pair in read_image_pairs(out):
        ImageStore(out).open(pair.negative.image)


def test_exported_pairs_of_images_are_rows_as_released(tmp_path):
    pairs, out = tmp_path / "pairs", tmp_path / "set"
    invoke("scenes", "--families", "dice,grid", "--n", 70, "--hardest", 0.3, "--out", pairs)
    done = invoke("export", pairs, "--out", out)
    assert done.exit_code == 0, done.output
    (file,) = out.glob("*.parquet")
    rows = VQARows.open(file)
    questions, as_pairs = rows.kinds()
    assert (questions, len(as_pairs)) == ([], 70)
    known = {pair.pair_id: pair for pair in read_image_pairs(pairs)}
    store = ImageStore(pairs)
    letters = Counter()
    for row in rows:
        shown = ReleasedImagePair(row=row).rendered()
        pair = known[row.row_id]
        letters[shown.correct] += 1
        assert row.images["AB".index(shown.correct)] == store.read(pair.positive.image)
        assert row.images["BA".index(shown.correct)] == store.read(pair.negative.image)
        assert shown.prompt.count("<image>") == 2
        assert pair.answer in shown.prompt
    assert letters == {"A": 35, "B": 35}
    assert "Contrastive pairs of images" in (out / "README.md").read_text()
    assert isinstance(invoke("export", pairs, "--out", out).exception, PairFileError)
