"""Pairs retrieved from image questions: what is found, what is left out and why, and going on."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from contextrl.pairs import neighbours
from contextrl.pairs.couple_choice import Questions
from contextrl.pairs.duplicates import THUMB_BYTES, look_of
from contextrl.pairs.embedders import PixelEmbedder, unit_rows
from contextrl.pairs.embedding_file import SEEN, VECTORS, EmbeddingFile, SeenImage
from contextrl.pairs.errors import EmbeddingError
from contextrl.pairs.images import ImageStore
from contextrl.pairs.neighbours import approximate_neighbours, exact_neighbours, recall
from contextrl.pairs.retrieval import RetrievalSettings, retrieve
from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.splits import held_out_groups
from contextrl.pairs.vqa import VQARow

FAMILIES = ("bars", "clock", "table", "maze", "dice", "plot", "grid", "pie")


def png(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def rows_of(family: str, seed: int, side: int = 140, **change) -> list[VQARow]:
    """Two rows with one question: what retrieval is to find."""
    scene = draw_pair(family, seed, 0.5, side=side)
    return [
        VQARow(
            row_id=f"{family}-{seed}-{name}",
            problem=f"<image>{scene.question}",
            images=(png(image),),
            answer=answer,
        ).model_copy(update=change)
        for name, image, answer in (
            ("a", scene.image_positive, scene.answer_positive),
            ("b", scene.image_negative, scene.answer_negative),
        )
    ]


def same(first: str, second: str) -> bool:
    return first.casefold() == second.casefold()


def mined(
    rows,
    folder,
    *,
    embedder=None,
    name="set",
    same_answer=None,
    on_progress=lambda *_: None,
    **settings,
):
    found = retrieve(
        [(name, rows)],
        embedder or PixelEmbedder(),
        folder / "work",
        ImageStore(folder),
        RetrievalSettings(**settings),
        same_answer or same,
        on_progress=on_progress,
    )
    return replace(found, pairs=tuple(found.pairs))


def by_name(result) -> dict[str, tuple[int, int]]:
    return {stage.name: (stage.seen, stage.kept) for stage in result.stages}


def test_alike_images_with_one_question_and_two_answers_become_two_pairs(tmp_path):
    rows = [row for family in FAMILIES for row in rows_of(family, 1)]
    result = mined(rows, tmp_path)
    assert len(result.pairs) == 2 * len(FAMILIES)
    store = ImageStore(tmp_path)
    known = {row.row_id: row for row in rows}
    for pair in result.pairs:
        where = pair.provenance
        assert where.positive_id[:-1] == where.negative_id[:-1]
        assert pair.answer == known[where.positive_id].answer != pair.negative.answer
        assert store.read(pair.positive.image) == known[where.positive_id].images[0]
        assert store.read(pair.negative.image) == known[where.negative_id].images[0]
        assert "<image>" not in pair.question
        assert where.similarity >= 0.85
    # Each image is right as often as wrong.
    sides = [
        Counter(getattr(p, side).image.sha256 for p in result.pairs)
        for side in ("positive", "negative")
    ]
    assert sides[0] == sides[1]
    assert len({pair.provenance.group for pair in result.pairs}) == len(FAMILIES)


def test_every_reason_to_leave_a_row_out_is_counted(tmp_path):
    good = rows_of("bars", 1)
    two = good[0].model_copy(update={"row_id": "two", "images": good[0].images * 2})
    empty = good[0].model_copy(update={"row_id": "empty", "answer": " "})
    broken = good[0].model_copy(update={"row_id": "broken", "images": (b"no image",)})
    again = good[0].model_copy(update={"row_id": "again"})
    result = mined([*good, two, empty, broken, again], tmp_path)
    assert len(result.pairs) == 2
    counts = by_name(result)
    assert counts["it shows one image"] == (6, 5)
    assert counts["it asks and has an answer"] == (5, 4)
    assert counts["its image opens"] == (4, 3)
    # The couple stands twice: once for each row of the image that two rows show.
    assert counts["no repeat of a picture couple's question"] == (2, 1)
    assert counts["different answers"] == (1, 1)
    ((reason, count),) = result.unread.items()
    assert count == 1
    assert "do not open" in reason


def test_another_question_or_the_same_answer_is_no_pair(tmp_path):
    first, second = rows_of("bars", 1)
    other = second.model_copy(update={"problem": "What else?"})
    assert not mined([first, other], tmp_path / "a").pairs
    loose = mined([first, other], tmp_path / "b", questions=Questions.ANY)
    assert {pair.provenance.negative_question for pair in loose.pairs} == {
        "What else?",
        first.problem.removeprefix("<image>"),
    }
    equal = second.model_copy(update={"answer": first.answer})
    result = mined([first, equal], tmp_path / "c")
    assert not result.pairs
    assert by_name(result)["different answers"] == (1, 0)
    # One picture in two encodings with two answers is a wrong label, not a pair.
    scene = draw_pair("bars", 1, 0.5, side=140).image_positive
    twice = first.model_copy(update={"row_id": "x", "images": (png(scene, "BMP"),), "answer": "77"})
    assert by_name(mined([first, twice], tmp_path / "d"))["two different pictures"] == (1, 0)


def test_far_images_are_no_pair(tmp_path):
    first = rows_of("bars", 1)[0]
    far = rows_of("display", 5, problem=first.problem)[0]
    result = mined([first, far], tmp_path)
    assert not result.pairs
    assert by_name(result)["cosine at least 0.85"] == (1, 0)


def test_copies_are_one_picture_and_twins_are_two(tmp_path):
    rows = rows_of("table", 1, side=448)
    looks = [look_of(Image.open(io.BytesIO(row.images[0]))) for row in rows]
    assert (looks[0] ^ looks[1]).bit_count() <= 4  # alike to the hash, and still a pair
    recoded = [
        row.model_copy(
            update={
                "row_id": row.row_id + "-jpeg",
                "images": (png(Image.open(io.BytesIO(row.images[0])), "JPEG", quality=90),),
            }
        )
        for row in rows
    ]
    result = mined([*rows, *recoded], tmp_path)
    assert len(result.pairs) == 2
    assert by_name(result)["two different pictures"] == (6, 1)
    assert by_name(result)["no repeat of a picture couple's question"] == (4, 1)


@pytest.mark.parametrize("family", ["circuit", "geometry", "gauge"])
def test_scenes_of_one_layout_are_no_copies_of_each_other(tmp_path, family):
    rows = [row for seed in range(7) for row in rows_of(family, seed)]
    result = mined(rows, tmp_path, per_image=100, neighbours=100, least_cosine=-1)
    # Whatever the perceptual hash thinks.
    assert by_name(result)["two different pictures"] == (91, 91)
    sides = [(pair.provenance.positive_id, pair.provenance.negative_id) for pair in result.pairs]
    couples = set(map(frozenset, sides))
    own = [frozenset((a.row_id, b.row_id)) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    assert couples.issuperset(own)


def test_two_questions_about_one_couple_are_two_pairs_of_pairs(tmp_path):
    first, second = rows_of("grid", 1)
    rows = [
        row.model_copy(update={"row_id": f"{row.row_id}{asked}", "problem": asked})
        for asked in ("What?", "Which?")
        for row in (first, second)
    ]
    result = mined(rows, tmp_path)
    assert Counter(pair.question for pair in result.pairs) == {"What?": 2, "Which?": 2}


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_picture_stored_often_hides_no_neighbour_and_counts_once(tmp_path, form):
    rows = []
    for row in rows_of("grid", 1, side=448):
        picture = Image.open(io.BytesIO(row.images[0])).convert("RGB")
        for number in range(12):
            # Files with other bytes: a comment for PNG, other pixels for JPEG.
            how = {"dpi": (number + 1, 1)} if form == "PNG" else {"quality": 84 + number}
            file = png(picture, form, **how)
            rows.append(
                row.model_copy(update={"row_id": f"{row.row_id}{number}", "images": (file,)})
            )
    result = mined(rows, tmp_path, neighbours=4)
    assert by_name(result)["two different pictures"] == (24 * 23 // 2, 1)
    assert len(result.pairs) == 2


def test_the_cap_of_an_image_holds_for_its_encodings_together(tmp_path):
    first, *_ = rows_of("grid", 1)
    picture = Image.open(io.BytesIO(first.images[0]))
    rows = [
        first.model_copy(update={"row_id": form, "images": (png(picture, form),), "answer": "a"})
        for form in ("PNG", "BMP", "TIFF")
    ]
    for seed in range(2, 9):
        other = rows_of("grid", seed)[1]
        rows.append(other.model_copy(update={"problem": first.problem, "answer": "b"}))
    result = mined(rows, tmp_path, least_cosine=-1, neighbours=50, per_image=2)
    assert sum(pair.answer == "a" for pair in result.pairs) == 2


def test_many_rows_about_two_images_are_one_couple_of_each_question(tmp_path):
    first, second = rows_of("grid", 1)
    rows = [
        row.model_copy(update={"row_id": f"{row.row_id}-{number}"})
        for number in range(400)
        for row in (first, second)
    ]
    asked = []

    def slow_same(one: str, other: str) -> bool:
        asked.append((one, other))
        return one == other

    result = mined(rows, tmp_path, same_answer=slow_same)
    assert len(result.pairs) == 2
    assert by_name(result)["no repeat of a picture couple's question"] == (160_000, 1)
    assert len(asked) == 2


def test_answers_are_compared_once_and_only_within_the_caps(tmp_path):
    rows = [
        row.model_copy(update={"problem": "What?", "answer": side})
        for seed in range(12)
        for row, side in zip(rows_of("grid", seed), ("3", "4"), strict=True)
    ]
    asked = []

    def told(one: str, other: str) -> bool:
        asked.append((one, other))
        return False

    mined(rows, tmp_path / "a", least_cosine=-1, neighbours=23, same_answer=told)
    assert sorted(asked) == [("3", "4"), ("4", "3")]
    asked.clear()
    mined(rows, tmp_path / "b", least_cosine=-1, per_source=1, same_answer=told)
    assert len(asked) == 2
    # What cannot be told makes no pair.
    unknown = mined(rows, tmp_path / "c", same_answer=lambda *_: None)
    assert not unknown.pairs


def test_caps_hold(tmp_path):
    rows = [row for seed in range(6) for row in rows_of("grid", seed)]
    assert len(mined(rows, tmp_path / "a").pairs) == 12
    capped = mined(rows, tmp_path / "b", per_source=2)
    assert len(capped.pairs) == 4
    assert by_name(capped)["within the caps"] == (6, 2)
    mixed = [row.model_copy(update={"source": f"part {n % 4 // 2}"}) for n, row in enumerate(rows)]
    by_part = mined(mixed, tmp_path / "m", per_source=2)
    assert Counter(pair.provenance.source for pair in by_part.pairs) == {"part 0": 4, "part 1": 4}
    assert len(mined(rows, tmp_path / "c", limit=3).pairs) == 2
    assert mined(rows, tmp_path / "d", per_source=2).pairs == capped.pairs
    reversed_ = mined(rows[::-1], tmp_path / "e", per_source=2)
    assert {pair.question for pair in reversed_.pairs} == {pair.question for pair in capped.pairs}


def test_pairs_that_share_a_picture_are_one_group_even_in_two_encodings(tmp_path):
    first, second = rows_of("table", 1)
    picture = Image.open(io.BytesIO(first.images[0]))
    again = first.model_copy(
        update={"row_id": "bmp", "images": (png(picture, "BMP"),), "problem": "What now?"}
    )
    other = rows_of("table", 2, problem="What now?")[0]
    result = mined([first, second, again, other], tmp_path, least_cosine=0.0)
    assert len(result.pairs) == 4
    assert len({pair.provenance.group for pair in result.pairs}) == 1


def test_two_runs_never_write_one_file_of_embeddings(tmp_path):
    file = EmbeddingFile(tmp_path, "e")
    with pytest.raises(EmbeddingError, match="another run"):
        EmbeddingFile(tmp_path, "e")
    file.close()
    EmbeddingFile(tmp_path, "e").close()


def test_held_out_pairs_share_no_image(tmp_path):
    rows = [row for family in FAMILIES for row in rows_of(family, 2)]
    pairs = mined(rows, tmp_path).pairs
    groups = held_out_groups(pairs, held_out_frac=0.25)
    held_out = [pair for pair in pairs if pair.provenance.group in groups]
    train = [pair for pair in pairs if pair.provenance.group not in groups]
    images = [
        {side.image.sha256 for pair in part for side in (pair.positive, pair.negative)}
        for part in (train, held_out)
    ]
    assert images[0].isdisjoint(images[1])
    assert len(held_out) == 4


class Counting(PixelEmbedder):
    """Counts what it embeds, and breaks down when told to."""

    def __init__(self, breaks_after: int = 1000) -> None:
        super().__init__()
        self.embedded = 0
        self._left = breaks_after

    def embed(self, images):
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        self.embedded += len(images)
        return super().embed(images)


def test_a_run_that_was_killed_goes_on_where_it_stopped(tmp_path):
    rows = [row for family in FAMILIES for row in rows_of(family, 1)]
    fresh = mined(rows, tmp_path / "fresh", batch=4)
    with pytest.raises(KeyboardInterrupt):
        mined(rows, tmp_path / "b", batch=4, embedder=Counting(breaks_after=2))
    # The kill came while a record was written: half of one, and vectors ahead of it.
    with (tmp_path / "b/work" / SEEN).open("ab") as stream:
        stream.write(b"half a record")
    with (tmp_path / "b/work" / VECTORS).open("ab") as stream:
        stream.write(b"\0" * 5000)
    counting = Counting()
    assert mined(rows, tmp_path / "b", batch=4, embedder=counting) == fresh
    assert counting.embedded == len(rows) - 8
    again = Counting()
    assert mined(rows, tmp_path / "b", embedder=again) == fresh
    assert again.embedded == 0
    # Rows that are gone are not searched, though their vectors are still in the file.
    assert len(mined(rows[:4], tmp_path / "b", embedder=again).pairs) == 4


def test_vectors_of_two_embedders_never_mix(tmp_path):
    mined(rows_of("bars", 1), tmp_path)
    with pytest.raises(EmbeddingError, match="another --work"):
        mined(rows_of("bars", 1), tmp_path, embedder=PixelEmbedder(cells=8))
    file = EmbeddingFile(tmp_path / "x", "e")
    image = SeenImage(b"a" * 32, b"b" * 16, 5)
    thumbs = np.zeros((1, THUMB_BYTES), np.uint8)
    file.append([image], np.ones((1, 4), np.float32), thumbs)
    with pytest.raises(EmbeddingError, match="of 4 numbers"):
        file.append([image], np.ones((1, 5), np.float32), thumbs)
    for bad in (np.nan, np.inf):
        with pytest.raises(EmbeddingError, match="finite"):
            file.append([image], np.full((1, 4), bad, np.float32), thumbs)
    assert len(file) == 1


def test_vectors_that_nothing_names_are_never_read_as_anothers(tmp_path):
    thumbs = np.zeros((1, THUMB_BYTES), np.uint8)
    with EmbeddingFile(tmp_path, "e") as file:
        file.append([SeenImage(b"a" * 32, b"b" * 16, 5)], np.ones((1, 4), np.float32), thumbs)
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(EmbeddingError, match="remove it"):
        EmbeddingFile(tmp_path, "e")
    (tmp_path / "about.json").unlink()  # as told
    for _ in range(2):
        with EmbeddingFile(tmp_path, "other") as file:
            if not len(file):
                nines = np.full((1, 5), 9, np.float32)
                file.append([SeenImage(b"z" * 32, b"z" * 16, 5)], nines, thumbs)
            assert file.vectors().tolist() == [[9.0] * 5]
            assert file.number_of(b"a" * 32) is None


class Killed(Exception):
    pass


@pytest.mark.parametrize("cells_probed", [None, 2], ids=["exact", "inverted-file"])
def test_a_search_that_was_killed_goes_on_behind_its_last_block(
    tmp_path, monkeypatch, cells_probed
):
    monkeypatch.setattr(neighbours, "QUERY_ROWS", 4)
    rows = [row for family in FAMILIES for row in rows_of(family, 1)]
    fresh = mined(rows, tmp_path / "fresh", cells_probed=cells_probed)

    searched = []

    def until(limit):
        def told(what, done, total):
            if what == "searched":
                searched.append((done, total))
                if done >= limit:
                    raise Killed

        return told

    with pytest.raises(Killed):
        mined(rows, tmp_path / "b", on_progress=until(8), cells_probed=cells_probed)
    (file,) = (tmp_path / "b/work").glob("neighbours-*")
    with file.open("ab") as stream:
        stream.write(b"half a record")
    searched.clear()
    assert mined(rows, tmp_path / "b", on_progress=until(1000), cells_probed=cells_probed) == fresh
    assert searched == [(12, 16), (16, 16)]
    searched.clear()
    assert mined(rows, tmp_path / "b", on_progress=until(1000), cells_probed=cells_probed) == fresh
    assert searched == []
    # Looking into more cells is another search; the old one is gone.
    mined(rows, tmp_path / "b", on_progress=until(1000), cells_probed=3)
    assert searched[-1] == (16, 16)
    assert not file.exists()


def clustered(n: int, width: int) -> np.ndarray:
    dice = np.random.default_rng(0)
    centers = dice.standard_normal((n // 5, width), np.float32)
    noise = dice.standard_normal((n, width), np.float32)
    return unit_rows(centers[dice.integers(len(centers), size=n)] + 0.3 * noise)


@pytest.mark.parametrize("block_bytes", [1 << 30, 4 * 16 * 37])
def test_exact_neighbours_are_those_of_plain_numpy_whatever_the_block(monkeypatch, block_bytes):
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
    vectors = clustered(300, 16)
    vectors[7] = vectors[8]  # a copy must not be taken for the image itself
    found = exact_neighbours(vectors, 5)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    wanted = np.sort(cosines, axis=1)[:, ::-1][:, :5]
    np.testing.assert_allclose(found.cosines, wanted, atol=1e-5)
    assert not (found.numbers == np.arange(300)[:, None]).any()
    assert 8 in found.numbers[7]
    couples = found.couples().at_least(0.9)
    assert len(couples) > 100
    assert len(set(zip(couples.first.tolist(), couples.second.tolist(), strict=True))) == len(
        couples
    )
    assert (couples.first < couples.second).all()
    assert (couples.cosines >= 0.9).all()
    # A few queries are answered as all of them are.
    some = exact_neighbours(vectors, 5, queries=np.array([7, 250]))
    np.testing.assert_array_equal(some.numbers, found.numbers[[7, 250]])


def test_an_inverted_file_states_what_it_missed():
    vectors = clustered(400, 16)
    exact = exact_neighbours(vectors, 5)
    assert recall(exact, exact) == 1.0
    assert recall(approximate_neighbours(vectors, 5, cells_probed=20), exact) > 0.99
    assert recall(approximate_neighbours(vectors, 5, cells_probed=1), exact) < 0.99
    tiny = exact_neighbours(vectors[:1], 5)
    assert len(tiny.couples()) == 0
    none = approximate_neighbours(vectors[:0], 5, cells_probed=4)
    assert len(none.couples()) == 0
    some = approximate_neighbours(vectors, 5, cells_probed=20, queries=np.array([3]))
    assert recall(some, exact_neighbours(vectors, 5, queries=np.array([3]))) > 0.99
