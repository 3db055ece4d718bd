"""Rows of a JSONL file: hostile ones are refused by name, in one line, before they cost memory."""

from __future__ import annotations

import json
import re

import pytest

from contextrl.pairs import vqa_folder
from contextrl.pairs.errors import PairFileError
from contextrl.pairs.vqa_folder import FolderRows, JoinedRows


def folder_of(folder, *lines: object) -> FolderRows:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images/a.png").write_bytes(b"image a")
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "rows.jsonl").write_text(text + "\n")
    return FolderRows(folder)


def row(image="images/a.png", **change) -> dict[str, object]:
    return {"images": [image], "problem": "What?", "answer": "x", **change}


def test_a_folder_of_rows_reads_no_file_outside_of_it(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = tmp_path / "rows"
    rows = folder_of(
        folder,
        row(problem="<image>What?", answer=3, source="charts"),
        row("../secret.png"),
        row(images="images/a.png"),
        {"problem": "?"},
        "not json",
    )
    assert len(rows) == 5
    assert (rows[0].images, rows[0].answer, rows[0].row_id) == ((b"image a",), "3", "rows.jsonl:1")
    assert rows[0].source == "charts"
    for number in range(1, 5):
        with pytest.raises(PairFileError, match=f"^rows.jsonl:{number + 1}: expected"):
            rows[number]
    with pytest.raises(PairFileError, match=r"one \.jsonl"):
        FolderRows(tmp_path)


@pytest.mark.parametrize(
    "hostile",
    [
        row("a\0b.png"),
        row("data:image/png;base64," + "A" * 5000),
        row("images/" + "a" * 300 + ".png"),
        row(problem="\ud800 what"),
        row(answer="\ud800"),
        row(row_id="\ud800"),
        row(images=[{"bytes": "x"}]),
        row(images=["images/a.png"] * 17),
        row("images/loop.png"),
        ["images", "problem", "answer"],
        "[" * 100_000,
        "",
    ],
    ids=lambda each: ascii(each)[:40],
)
def test_a_hostile_row_is_one_short_line(tmp_path, hostile):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/loop.png").symlink_to("loop.png")
    rows = folder_of(tmp_path, hostile, row())
    with pytest.raises(PairFileError, match=r"^rows\.jsonl:1: expected") as caught:
        rows[0]
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 300
    said.encode()
    assert rows[1].answer == "x"


def test_a_file_that_is_named_often_is_read_once(tmp_path, monkeypatch):
    rows = folder_of(tmp_path, row(images=["images/a.png", "./images/a.png"]), row())
    first, second = rows[0].images
    assert first is second
    monkeypatch.setattr(vqa_folder, "MAX_ROW_BYTES", 3)
    with pytest.raises(PairFileError, match="in all"):
        rows[1]
    monkeypatch.setattr(vqa_folder, "MAX_LINE_BYTES", 10)
    with pytest.raises(PairFileError, match="longer"):
        rows[1]


def test_shards_are_one_set(tmp_path):
    parts = [
        folder_of(tmp_path / name, *[row(answer=name)] * n) for name, n in (("a", 2), ("b", 1))
    ]
    joined = JoinedRows([parts[0], JoinedRows([]), parts[1]])
    assert [each.answer for each in joined] == ["a", "a", "b"]
    assert joined[-1].answer == "b"
    assert [each.answer for each in joined[1:]] == ["a", "b"]
    with pytest.raises(IndexError):
        joined[3]
    assert re.match("rows", joined[2].row_id)
