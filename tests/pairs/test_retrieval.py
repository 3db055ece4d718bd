"""Pairs retrieved from image questions: what is found, what is left out and why, and going on."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from contextrl.pairs import neighbours
from contextrl.pairs.duplicates import SeenCouples, look_of
from contextrl.pairs.embedders import PixelEmbedder, ServerEmbedder, ServerSettings, unit_rows
from contextrl.pairs.embedding_file import SEEN, VECTORS, EmbeddingFile, SeenImage
from contextrl.pairs.errors import EmbeddingError, EndpointBusyError, PairFileError
from contextrl.pairs.images import ImageStore
from contextrl.pairs.neighbours import approximate_neighbours, exact_neighbours, recall
from contextrl.pairs.retrieval import Questions, RetrievalSettings, retrieve
from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.splits import split_image_pairs
from contextrl.pairs.vqa import VQARow
from contextrl.pairs.vqa_folder import FolderRows

FAMILIES = ("bars", "clock", "table", "maze", "dice", "plot", "grid", "pie")


def png(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def rows_of(family: str, seed: int, **change) -> list[VQARow]:
    """Two rows with one question: what retrieval is to find."""
    scene = draw_pair(family, seed, 0.5, side=140)
    return [
        VQARow(
            row_id=f"{family}-{seed}-{side}",
            problem=f"<image>{scene.question}",
            images=(png(image),),
            answer=answer,
        ).model_copy(update=change)
        for side, image, answer in (
            ("a", scene.image_positive, scene.answer_positive),
            ("b", scene.image_negative, scene.answer_negative),
        )
    ]


def same(first: str, second: str) -> bool:
    return first.casefold() == second.casefold()


def mined(rows, folder, *, embedder=None, name="set", **settings):
    return retrieve(
        [(name, rows)],
        embedder or PixelEmbedder(),
        folder / "work",
        ImageStore(folder),
        RetrievalSettings(**settings),
        same,
    )


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
    assert counts["different answers"] == (2, 2)
    assert counts["no near-duplicate of another pair"] == (2, 1)
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


def test_near_duplicates_go_across_pairs_and_never_within_one(tmp_path):
    rows = rows_of("table", 1)
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
    assert by_name(result)["no near-duplicate of another pair"][1] == 1


def test_caps_hold(tmp_path):
    rows = [row for seed in range(6) for row in rows_of("grid", seed)]
    assert len(mined(rows, tmp_path / "a").pairs) == 12
    capped = mined(rows, tmp_path / "b", per_source=2)
    assert len(capped.pairs) == 4
    assert by_name(capped)["within the caps"] == (6, 2)
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
    parts = split_image_pairs(mined(rows, tmp_path).pairs, held_out_frac=0.25)
    images = [
        {side.image.sha256 for pair in parts[name] for side in (pair.positive, pair.negative)}
        for name in ("train", "held-out")
    ]
    assert images[0].isdisjoint(images[1])
    assert len(parts["held-out"]) == 4


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
    file.append([image], np.ones((1, 4), np.float32))
    with pytest.raises(EmbeddingError, match="of 4 numbers"):
        file.append([image], np.ones((1, 5), np.float32))


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
    couples = list(found.couples(0.9))
    assert len({(first, second) for first, second, _ in couples}) == len(couples)
    assert all(first < second and cosine >= 0.9 for first, second, cosine in couples)


def test_an_inverted_file_states_what_it_missed():
    vectors = clustered(400, 16)
    exact = exact_neighbours(vectors, 5)
    assert recall(exact, exact) == 1.0
    assert recall(approximate_neighbours(vectors, 5, cells_probed=20), exact) > 0.99
    assert recall(approximate_neighbours(vectors, 5, cells_probed=1), exact) < 0.99
    tiny = exact_neighbours(vectors[:1], 5)
    assert list(tiny.couples(-1.0)) == []


def test_couples_are_repeats_in_either_order():
    seen = SeenCouples(bits=1)
    for at in range(2000):  # past its first allocation
        seen.take(at << 20, (at << 20) | 0xF0F0)
    assert seen.is_repeat(1500 << 20, (1500 << 20) | 0xF0F1)
    assert seen.is_repeat((1500 << 20) | 0xF0F0, 1500 << 20)
    assert not seen.is_repeat(1500 << 20, 1500 << 20)


@contextmanager
def embedding_server(answer):
    """A real HTTP server that speaks vLLM's `/v1/embeddings`; `answer(body) -> (status, reply)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, reply = answer(self.path, dict(self.headers), body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/v1"
        finally:
            http.shutdown()


def server_settings(url: str, **change) -> ServerSettings:
    return ServerSettings(model="m", base_url=url, api_key="key", first_pause_s=0.0, **change)


def test_a_server_embeds_the_images_it_is_sent():
    faults = iter([(503, {})])

    def answer(path, headers, body):
        assert (path, headers["Authorization"], body["model"]) == (
            "/v1/embeddings",
            "Bearer key",
            "m",
        )
        fault = next(faults, None)
        if fault:
            return fault
        url = body["messages"][0]["content"][0]["image_url"]["url"]
        image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
        return 200, {"data": [{"embedding": [float(v) for v in image.getpixel((0, 0))]}]}

    images = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "white")]
    with embedding_server(answer) as url:
        vectors = ServerEmbedder(server_settings(url)).embed(images)
    np.testing.assert_allclose(vectors, [[1, 0, 0], [0, 0, 1], [3**-0.5] * 3], atol=1e-6)


@pytest.mark.parametrize(
    ("status", "reply", "error"),
    [
        (400, {"error": "no such model"}, EmbeddingError),
        (200, {"data": []}, EmbeddingError),
        (200, {"data": [{"embedding": [float("nan")]}]}, EmbeddingError),
        (500, {}, EndpointBusyError),
    ],
)
def test_a_server_that_does_not_embed_is_one_line(status, reply, error):
    with embedding_server(lambda *_: (status, reply)) as url:
        embedder = ServerEmbedder(server_settings(url, tries=2))
        with pytest.raises(error) as caught:
            embedder.embed([Image.new("RGB", (4, 4))])
    assert "\n" not in str(caught.value)


def test_a_folder_of_rows_reads_no_file_outside_of_it(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = tmp_path / "rows"
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.png").write_bytes(b"image a")
    lines = [
        {"images": ["images/a.png"], "problem": "<image>What?", "answer": 3},
        {"images": ["../secret.png"], "problem": "?", "answer": "x"},
        {"images": "images/a.png", "problem": "?", "answer": "x"},
        {"problem": "?"},
    ]
    text = "\n".join(json.dumps(line) for line in lines) + "\nnot json\n"
    (folder / "rows.jsonl").write_text(text)
    rows = FolderRows(folder)
    assert len(rows) == 5
    assert (rows[0].images, rows[0].answer, rows[0].row_id) == ((b"image a",), "3", "rows.jsonl:1")
    for number in range(1, 5):
        with pytest.raises(PairFileError, match=f"^rows.jsonl:{number + 1}: expected"):
            rows[number]
    with pytest.raises(PairFileError, match=r"one \.jsonl"):
        FolderRows(tmp_path)
