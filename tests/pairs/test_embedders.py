"""Embedding by a model: what it is sent, what is tried again, and images that it does not take."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
import types
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from contextrl.pairs.embed_server import MOST_IN_A_ROW, ServerEmbedder, ServerSettings
from contextrl.pairs.embedders import INSTRUCTION, SentenceTransformersEmbedder, embedder_name
from contextrl.pairs.embedding_file import REFUSED
from contextrl.pairs.errors import EmbeddingError, EndpointBusyError
from contextrl.pairs.images import ImageStore, png_file
from contextrl.pairs.retrieval import RetrievalSettings, retrieve
from contextrl.pairs.vqa import VQARow

CUT = "cut"
"""A reply that ends in the middle of its body."""


@contextmanager
def embedding_server(answer):
    """A real HTTP server that speaks vLLM's `/v1/embeddings`; `answer(body) -> (status, reply)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, reply = answer(self.path, dict(self.headers), body)
            self.send_response(status)
            if reply == CUT:
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self.wfile.write(b'10\r\n{"da')
                self.close_connection = True
                return
            data = json.dumps(reply).encode()
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


def embedder(url: str, **change) -> ServerEmbedder:
    return ServerEmbedder(
        ServerSettings(model="m", base_url=url, api_key="key", first_pause_s=0.0, **change)
    )


def shown(body) -> Image.Image:
    (part,) = body["messages"][1]["content"]
    return Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2])))


def first_pixel(body):
    return 200, {"data": [{"embedding": [float(v) for v in shown(body).getpixel((0, 0))]}]}


def test_a_server_embeds_the_images_it_is_sent():
    faults = iter([(503, {}), (200, CUT), (429, {})])
    seen = []

    def answer(path, headers, body):
        assert (path, headers["Authorization"], body["model"]) == (
            "/v1/embeddings",
            "Bearer key",
            "m",
        )
        seen.append(body)
        return next(faults, None) or first_pixel(body)

    images = [Image.new("RGB", (4, 4), color) for color in ("red", "blue", "white")]
    with embedding_server(answer) as url:
        embedded = embedder(url).embed(images)
    assert not embedded.refused
    np.testing.assert_allclose(embedded.vectors, [[1, 0, 0], [0, 0, 1], [3**-0.5] * 3], atol=1e-6)
    # As vLLM documents it for Qwen3-VL-Embedding.
    system, user, assistant = seen[0]["messages"]
    assert system == {"role": "system", "content": [{"type": "text", "text": INSTRUCTION}]}
    assert INSTRUCTION == "Represent the user's input."
    assert [part["type"] for part in user["content"]] == ["image_url"]
    assert assistant == {"role": "assistant", "content": [{"type": "text", "text": ""}]}
    assert seen[0]["continue_final_message"] is seen[0]["add_special_tokens"] is True


def test_an_image_is_sent_within_the_models_budget():
    sizes = []

    def answer(path, headers, body):
        sizes.append(shown(body).size)
        return first_pixel(body)

    with embedding_server(answer) as url:
        embedder(url).embed([Image.new("RGB", (4000, 2000), "red"), Image.new("RGB", (90, 50))])
    assert sorted(sizes) == [(90, 50), (1920, 960)]


@pytest.mark.parametrize(
    ("status", "reply", "error"),
    [
        (401, {"error": "no such key"}, EmbeddingError),
        (403, {}, EmbeddingError),
        (404, {"error": "no such model"}, EmbeddingError),
        (200, {"data": []}, EmbeddingError),
        (200, CUT, EndpointBusyError),
        (500, {}, EndpointBusyError),
    ],
)
def test_a_server_that_does_not_embed_is_one_line(status, reply, error):
    with embedding_server(lambda *_: (status, reply)) as url, pytest.raises(error) as caught:
        embedder(url, tries=2).embed([Image.new("RGB", (4, 4))])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "http//x/v1", "/v1", "ftp://x/v1"])
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(EmbeddingError, match="such as http://localhost:8000/v1"):
        embedder(url)


def test_an_address_that_no_client_takes_is_one_line():
    with pytest.raises(EmbeddingError, match="expected a reply") as caught:
        embedder("http://*:99999/v1").embed([Image.new("RGB", (4, 4))])
    assert "\n" not in str(caught.value)


def rows(n: int, refused: set[int]) -> list[VQARow]:
    return [
        VQARow(
            row_id=f"r{at}",
            problem="What?",
            images=(png_file(Image.new("RGB", (90 if at in refused else 40, 40), (9 * at, 9, 9))),),
            answer=str(at),
        )
        for at in range(n)
    ]


def test_an_image_that_the_server_refuses_is_left_out_once_and_for_all(tmp_path):
    asked = []

    def answer(path, headers, body):
        asked.append(shown(body).width)
        if shown(body).width == 90:
            return 400, {"error": {"message": "The prompt is longer than the maximum length"}}
        return first_pixel(body)

    def mined(url):
        found = retrieve(
            [("s", rows(8, {3}))],
            embedder(url),
            tmp_path / "work",
            ImageStore(tmp_path),
            RetrievalSettings(batch=2),
            lambda a, b: a == b,
        )
        return replace(found, pairs=tuple(found.pairs))

    with embedding_server(answer) as url:
        result = mined(url)
        assert {stage.name: (stage.seen, stage.kept) for stage in result.stages}[
            "the embedder takes its image"
        ] == (8, 7)
        ((reason, count),) = result.unread.items()
        assert count == 1
        assert "status 400" in reason
        assert "longer than the maximum" in reason
        assert result.pairs
        assert asked.count(90) == 1
        assert mined(url) == result
        assert asked.count(90) == 1
        (tmp_path / "work" / REFUSED).unlink()  # the server takes more now: ask again
        mined(url)
        assert asked.count(90) == 2


@pytest.mark.parametrize("reply", [(400, {}), (200, {"data": [{"embedding": [float("nan")]}]})])
def test_many_refusals_in_a_row_are_the_servers_fault(reply):
    image = Image.new("RGB", (4, 4))
    with embedding_server(lambda *_: reply) as url:
        asking = embedder(url)
        for _ in range(MOST_IN_A_ROW - 1):
            assert asking.embed([image]).refused
        with pytest.raises(EmbeddingError, match="in a row"):
            asking.embed([image])


def test_a_model_in_this_process_gets_instruction_and_budget(monkeypatch):
    asked = []

    class Model:
        def __init__(self, name, **settings) -> None:
            assert settings["trust_remote_code"] is False

        def encode(self, images, **settings):
            asked.append(([image.size for image in images], settings.get("prompt")))
            return np.array([[3.0, 4.0], [np.nan, 1.0]], np.float32)

    fake = types.ModuleType("sentence_transformers")
    fake.SentenceTransformer = Model
    monkeypatch.setitem(sys.modules, "sentence_transformers", fake)
    images = [Image.new("RGB", (4000, 2000)), Image.new("RGB", (30, 30))]
    embedded = SentenceTransformersEmbedder("m").embed(images)
    assert asked == [([(1920, 960), (30, 30)], INSTRUCTION)]
    np.testing.assert_allclose(embedded.vectors[0], [0.6, 0.8], atol=1e-6)
    assert list(embedded.refused) == [1]  # an overflow is that image's fault alone
    SentenceTransformersEmbedder("m", instruction="").embed(images)
    assert asked[-1][1] is None


def test_vectors_are_named_by_all_that_they_depend_on():
    names = {
        embedder("http://x/v1").name,
        embedder("http://x/v1", instruction="Find it.").name,
        embedder("http://x/v1", instruction="").name,
        embedder("http://x/v1", max_pixels=1000).name,
        embedder_name("m", "in process", INSTRUCTION, 1800 * 32 * 32),
    }
    assert len(names) == 5
    assert embedder("http://x/v1").name == embedder("http://y/v1").name
