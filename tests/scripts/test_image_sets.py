"""Folders of pairs of images: what a run may remove, and how sources are named."""

from __future__ import annotations

import json
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from contextrl.pairs.errors import PairFileError
from contextrl.pairs.images import ImageStore, png_file
from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.store import is_complete, read_image_pairs
from contextrl.pairs.types import ImageContext, ImagePair, ImageProvenance
from contextrl.scripts import image_sets
from contextrl.scripts.cli_mine import app
from contextrl.scripts.console import ScriptError
from contextrl.scripts.image_sources import open_rows, source_names


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def rows_at(folder: Path, n: int = 4) -> Path:
    """A folder of rows whose images lie where a careless run would look for its own."""
    (folder / "images/train").mkdir(parents=True)
    lines = []
    for seed in range(n):
        scene = draw_pair("grid", seed, 0.5)
        for side, image, answer in (
            ("a", scene.image_positive, scene.answer_positive),
            ("b", scene.image_negative, scene.answer_negative),
        ):
            name = f"images/train/{seed}{side}.png"
            (folder / name).write_bytes(png_file(image))
            problem = f"{scene.question} {seed}"
            lines.append(json.dumps({"images": [name], "problem": problem, "answer": answer}))
    (folder / "images/train/precious.png").write_bytes(b"mine")
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def mine(source: Path, out: Path, *more: object):
    return invoke("images", source, "--embedder", "pixels", "--out", out, *more)


def stored(folder: Path) -> int:
    return len(list((folder / "images").glob("*/*")))


def test_a_set_is_never_written_over_its_own_source(tmp_path):
    source = rows_at(tmp_path / "rows")
    before = files_in(source)
    done = mine(source, source)
    assert isinstance(done.exception, PairFileError)
    assert "choose another --out" in str(done.exception)
    assert isinstance(mine(source / "rows.jsonl", source, "--overwrite").exception, PairFileError)
    held_out = rows_at(tmp_path / "P/train")
    done = mine(held_out, tmp_path / "P", "--held-out-frac", 0.5)
    assert isinstance(done.exception, PairFileError)
    assert files_in(source) == files_in(held_out) == before


def test_nothing_but_stored_images_is_removed(tmp_path):
    out = tmp_path / "project"
    ours = out / "images" / "ab" / f"ab{'0' * 62}.png"
    half = out / "images" / "ab" / f".ab{'0' * 62}.png.x1y2"
    theirs = [
        out / "images/holiday/a.jpg",
        out / "images/ab/notes.txt",
        out / "images/ab" / f"cd{'0' * 62}.png",
        out / "images" / "ab" / f"ab{'0' * 62}.txt",
        out / "images/a.png",
    ]
    for path in (ours, half, *theirs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert invoke("scenes", "--families", "dice", "--n", 2, "--out", out).exit_code == 0
    assert not ours.exists()
    assert not half.exists()
    assert all(path.exists() for path in theirs)


def test_a_whole_set_and_a_split_one_never_stand_in_one_folder(tmp_path):
    source, out = rows_at(tmp_path / "rows"), tmp_path / "P"
    assert mine(source, out).exit_code == 0
    n_images = stored(out)
    done = mine(source, out, "--held-out-frac", 0.5)
    assert isinstance(done.exception, PairFileError)
    assert n_images == stored(out) > 0
    assert mine(source, out, "--held-out-frac", 0.5, "--overwrite").exit_code == 0
    assert not is_complete(out)
    assert not (out / "pairs.jsonl").exists()
    assert stored(out) == 0
    assert isinstance(mine(source, out).exception, PairFileError)
    assert mine(source, out, "--overwrite").exit_code == 0
    assert is_complete(out)
    for part in ("train", "held-out"):
        assert not is_complete(out / part)
        assert stored(out / part) == 0
    for pair in read_image_pairs(out):
        ImageStore(out).open(pair.positive.image)


def test_a_run_killed_between_the_parts_leaves_no_old_part_complete(tmp_path, monkeypatch):
    source, out = rows_at(tmp_path / "rows"), tmp_path / "P"
    split = ["--held-out-frac", 0.4]
    assert mine(source, out, *split).exit_code == 0
    write = image_sets.write_pairs

    def dies(folder, *arguments, **named):
        if folder.name == "held-out":
            raise KeyboardInterrupt
        return write(folder, *arguments, **named)

    monkeypatch.setattr(image_sets, "write_pairs", dies)
    mine(source, out, *split, "--overwrite", "--seed", 7)
    assert is_complete(out / "train")
    assert not is_complete(out / "held-out")


def test_repeated_row_ids_still_make_pairs_of_their_own(tmp_path):
    source = rows_at(tmp_path / "rows")
    lines = [json.loads(line) for line in (source / "rows.jsonl").read_text().splitlines()]
    text = "\n".join(json.dumps({**line, "row_id": f"r{n % 2}"}) for n, line in enumerate(lines))
    (source / "rows.jsonl").write_text(text)
    assert mine(source, tmp_path / "P").exit_code == 0
    pairs = read_image_pairs(tmp_path / "P")
    assert len({pair.pair_id for pair in pairs}) == len(pairs) == 8


@pytest.mark.parametrize("more", [[], ["--cells-probed", 4]])
def test_no_usable_row_is_an_empty_set(tmp_path, more):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    done = mine(tmp_path / "rows.jsonl", tmp_path / "P", *more)
    assert done.exit_code == 0, done.exception
    assert "0 pairs in" in done.stdout
    assert "1 rows left out: expected an object" in done.stdout


def test_sources_are_named_by_what_tells_them_apart(tmp_path):
    def names(*sources: str) -> list[str]:
        return source_names(sources)

    assert names("a/x.parquet", "b/y.parquet") == ["x", "y"]
    assert names("/d/ai2d/train.parquet", "/d/chartqa/train.parquet", "hf://o/n") == [
        "ai2d/train",
        "chartqa/train",
        "o/n",
    ]
    shards = [f"/d/ai2d/train-0000{n}-of-00002.parquet" for n in range(2)]
    assert names(*shards) == ["train", "train"]
    assert names(*shards, "/d/chartqa/train-00000-of-00003.parquet") == [
        "ai2d/train",
        "ai2d/train",
        "chartqa/train",
    ]
    with pytest.raises(ScriptError, match="twice"):
        open_rows([str(tmp_path), f"{tmp_path}/../{tmp_path.name}"])


def test_a_folder_of_shards_is_one_source(tmp_path):
    pytest.importorskip("datasets")
    folder = tmp_path / "ai2d"
    folder.mkdir()
    for shard in range(2):
        table = pyarrow.table(
            {
                "images": [[{"bytes": b"x", "path": None}]],
                "problem": ["?"],
                "answer": [str(shard)],
            }
        )
        pyarrow.parquet.write_table(table, folder / f"train-0000{shard}-of-00002.parquet")
    ((name, rows),) = open_rows([str(folder)])
    assert name == "ai2d"
    assert [row.answer for row in rows] == ["0", "1"]
    assert len({row.row_id for row in rows}) == 2


class MadeWhenRead(Sequence):
    """Pairs that nothing here keeps; `most` is how many of the last fifty were alive at once."""

    def __init__(self, n: int, store: ImageStore) -> None:
        scene = draw_pair("grid", 0, 0.5)
        self._refs = [
            store.put_drawn(each) for each in (scene.image_positive, scene.image_negative)
        ]
        self._n = n
        self._made: deque[weakref.ref[ImagePair]] = deque(maxlen=50)
        self.most = 0

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, at):
        if not 0 <= at < self._n:
            raise IndexError(at)
        self.most = max(self.most, sum(each() is not None for each in self._made))
        first, second = (
            ImageContext(image=ref, answer=answer)
            for ref, answer in zip(self._refs, "12", strict=True)
        )
        pair = ImagePair(
            pair_id=f"pair-{at:04}",
            question="Which?",
            answer="1",
            positive=first,
            negative=second,
            provenance=ImageProvenance(
                source="test", group=f"g{at % 10}", positive_id="p", negative_id="n", miner="test"
            ),
        )
        self._made.append(weakref.ref(pair))
        return pair


@pytest.mark.parametrize("held_out_frac", [0.0, 0.3])
def test_pairs_are_written_one_at_a_time(tmp_path, held_out_frac):
    pairs = MadeWhenRead(600, ImageStore(tmp_path))
    made = image_sets.ImageSet(pairs=pairs, stages=(), miner="test", seed=0)
    manifests = image_sets.write_sets(tmp_path, made, held_out_frac, overwrite=False)
    assert sum(each.n_pairs for each in manifests.values()) == 600
    assert 0 < pairs.most <= 3
    back = [pair for folder in manifests for pair in read_image_pairs(folder)]
    assert sorted(back, key=lambda pair: pair.pair_id) == list(pairs)
