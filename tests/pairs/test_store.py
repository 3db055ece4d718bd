from __future__ import annotations

import json

import pytest

from contextrl.pairs.cascade import MINER, StageCount
from contextrl.pairs.errors import PairFileError
from contextrl.pairs.released import (
    ReleasedPair,
    read_released,
    released_pair,
    write_released,
)
from contextrl.pairs.render import RELEASED, render
from contextrl.pairs.store import (
    MANIFEST,
    PAIRS,
    read_any,
    read_manifest,
    read_pairs,
    source_file,
    write_pairs,
)
from contextrl.pairs.types import Order


@pytest.fixture
def folder(make, tmp_path):
    stage = StageCount(name="same file", unit="pairs", seen=9, kept=2)
    write_pairs(tmp_path / "set", make.mined(), miner=MINER, seed=3, stages=[stage])
    return tmp_path / "set"


def test_pairs_and_their_manifest_read_back(make, folder):
    assert read_pairs(folder) == make.mined()
    assert read_pairs(folder / PAIRS) == make.mined()
    assert read_any(folder) == make.mined()
    manifest = read_manifest(folder)
    assert (manifest.n_pairs, manifest.seed, manifest.miner) == (2, 3, MINER)
    assert manifest.stages[0].kept == 2


def test_a_partial_set_says_what_it_lacks(make, tmp_path, caplog):
    folder, pairs = tmp_path / "set", make.mined()
    write_pairs(folder, pairs, miner="edited", seed=0, unasked=3)
    assert read_pairs(folder) == pairs
    (warning,) = caplog.messages
    assert "2 pairs, and 3 rows without an outcome" in warning
    write_pairs(folder, pairs, miner="edited", seed=0)
    caplog.clear()
    read_pairs(folder)
    assert not caplog.messages


def test_a_complete_set_is_not_overwritten_unasked(make, folder):
    before = (folder / PAIRS).read_bytes()
    with pytest.raises(PairFileError, match="--overwrite"):
        write_pairs(folder, make.mined()[:1], miner=MINER, seed=0)
    assert (folder / PAIRS).read_bytes() == before
    write_pairs(folder, make.mined()[:1], miner=MINER, seed=0, overwrite=True)
    assert len(read_pairs(folder)) == 1


def test_a_cut_write_is_never_taken_for_whole(make, folder):
    (folder / MANIFEST).unlink()
    with pytest.raises(PairFileError, match="cut short"):
        read_pairs(folder)
    # and may be written again without asking
    write_pairs(folder, make.mined(), miner=MINER, seed=0)
    assert len(read_pairs(folder)) == 2


def test_a_failed_overwrite_leaves_no_set_that_looks_complete(make, folder, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    pairs = make.mined()
    monkeypatch.setattr("contextrl.pairs.store.os.replace", full_disk)
    with pytest.raises(PairFileError, match="No space left"):
        write_pairs(folder, pairs, miner=MINER, seed=0, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(PairFileError):
        read_pairs(folder)
    assert [p.name for p in folder.iterdir()] == [PAIRS]


def test_changed_bytes_and_other_schemas_are_refused(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / PAIRS).write_bytes((folder / PAIRS).read_bytes()[:-40])
    with pytest.raises(PairFileError, match="other bytes"):
        read_pairs(folder)
    (folder / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(PairFileError, match="expected schema 1, found 99"):
        read_pairs(folder)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(PairFileError, match="pair manifest"):
        read_pairs(folder)


def test_a_source_is_known_by_its_content(tmp_path):
    (tmp_path / "tasks.jsonl").write_text("x\n")
    assert source_file(tmp_path / "tasks.jsonl").sha256.startswith("73cb3858a687a849")
    with pytest.raises(PairFileError):
        source_file(tmp_path / "absent")


ROWS = [
    b'{"prompt": "A?\\nB?", "correct_answer": "A"}\n',
    b'{"correct_answer":"B","prompt":"caf\xc3\xa9 \\u00e9", "extra": [1, 2]}\r\n',
    b'{"prompt": "last", "correct_answer": "B"}',
]


def test_released_rows_are_written_byte_for_byte(tmp_path):
    path, copy = tmp_path / "pairs_released.jsonl", tmp_path / "copy.jsonl"
    path.write_bytes(b"".join(ROWS))
    rows = read_any(path)
    assert all(isinstance(row, ReleasedPair) for row in rows)
    write_released(copy, rows)
    assert copy.read_bytes() == path.read_bytes()
    with pytest.raises(PairFileError, match="found one"):
        write_released(copy, rows)
    # in another sequence every row still ends
    write_released(tmp_path / "turned.jsonl", rows[::-1])
    assert [row.prompt for row in read_released(tmp_path / "turned.jsonl")] == [
        "last",
        "caf\u00e9 \u00e9",
        "A?\nB?",
    ]


def test_released_rows_become_prompts(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(ROWS))
    first, second, _ = read_released(path)
    rendered = second.rendered("The correct option is")
    assert (rendered.correct, rendered.order) == ("B", Order.POSITIVE_SECOND)
    assert rendered.prefill == "The correct option is"
    assert first.pair_id != second.pair_id


def test_our_prompts_can_be_written_as_released_rows(make, tmp_path):
    rendered = render(make.mined()[0], Order.POSITIVE_SECOND, RELEASED)
    write_released(tmp_path / "out.jsonl", [released_pair(rendered, 1)])
    (row,) = read_released(tmp_path / "out.jsonl")
    assert (row.prompt, row.correct) == (rendered.prompt, "B")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "x", "correct_answer": "C"}', r"x\.jsonl:2: expected 'A' or 'B' .* 'C'"),
        (b'{"prompt": "x"}', r":2: expected 'A' or 'B'"),
        (b'{"correct_answer": "A"}', r":2: expected an object with a text"),
        (b"[1]", r":2: expected an object"),
        (b"{nope", r":2: expected one JSON object per line"),
        (b"\xff\xfe", r":2: expected one JSON object per line"),
        (b"[" * 100_000, r":2: expected one JSON object per line"),
    ],
)
def test_a_bad_released_row_is_named_by_its_line(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(ROWS[0] + line + b"\n")
    with pytest.raises(PairFileError, match=message):
        read_released(path)


def test_no_file_and_an_empty_file_are_named(tmp_path):
    with pytest.raises(PairFileError, match="absent"):
        read_any(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    with pytest.raises(PairFileError, match="at least one pair"):
        read_any(tmp_path / "empty.jsonl")
