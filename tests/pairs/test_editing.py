"""Editing against a real local server that edits well, badly, not at all, and everywhere."""

from __future__ import annotations

import base64
import email
import io
import json
import threading
from collections import Counter, deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from contextrl.pairs.edit_calls import EditCalls
from contextrl.pairs.edit_prompts import read_proposal
from contextrl.pairs.editing import EditSettings, EditStage, edit_pairs
from contextrl.pairs.endpoints import EndpointSettings, LiteLLMEndpoint
from contextrl.pairs.errors import JudgeError
from contextrl.pairs.image_endpoint import ImageEndpointSettings, LiteLLMImageEndpoint
from contextrl.pairs.images import ImageStore, png_file
from contextrl.pairs.ledger import Ledger
from contextrl.pairs.locality import LocalityFault, LocalityLimits, fault, measure
from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.vqa import VQARow

pytest.importorskip("litellm")

SCENE = draw_pair("shapes", 3, 0.5, side=224)
MODES = (
    "edited",
    "photo",
    "broken",
    "empty",
    "identical",
    "bright",
    "blurred",
    "restyled",
    "many",
    "wide",
    "larger",
    "same answer",
    "no change",
    "refused",
)


def edited(mode: str) -> bytes:
    """What the image model returns for the scene."""
    original, other = SCENE.image_positive, SCENE.image_negative
    if mode == "photo":  # as generative models do: everything moves a little
        noise = np.random.default_rng(0).integers(-6, 7, (*other.size, 3))
        pixels = np.clip(np.asarray(other, np.int16) + noise, 0, 255).astype(np.uint8)
        return png_file(Image.fromarray(pixels))
    if mode == "many":
        page = original.copy()
        for at in range(0, 224, 32):
            page.paste("#104020", (at, (at * 3) % 224, at + 18, (at * 3) % 224 + 18))
        return png_file(page)
    return {
        "edited": lambda: png_file(other),
        "broken": lambda: png_file(other)[:200],
        "empty": lambda: b"",
        "identical": lambda: png_file(original),
        "bright": lambda: png_file(ImageEnhance.Brightness(other).enhance(0.8)),
        "blurred": lambda: png_file(other.filter(ImageFilter.GaussianBlur(6))),
        "restyled": lambda: png_file(other.convert("L").convert("RGB").point(lambda v: 255 - v)),
        "wide": lambda: png_file(other.resize((224, 160))),
        "larger": lambda: png_file(other.resize((448, 448))),
        "same answer": lambda: png_file(other),
        "refused": lambda: png_file(other),
    }[mode]()


class Server:
    """Speaks OpenAI's chat and images/edits; `faults` are status codes, played first."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.faults: deque[int] = deque()
        self.instructions: list[str] = []
        self.lock = threading.Lock()

    def reply(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        with self.lock:
            if self.faults:
                return self.faults.popleft(), {"error": {"message": "no"}}
        if path.endswith("/images/edits"):
            fields = _fields(headers["content-type"], body)
            instruction = fields["prompt"].decode()
            Image.open(io.BytesIO(fields.get("image[]") or fields["image"])).load()
            with self.lock:
                self.calls["edit"] += 1
                self.instructions.append(instruction)
            mode = instruction.partition("mode: ")[2]
            if mode == "address":
                return 200, {"created": 0, "data": [{"url": "http://127.0.0.1:1/secret"}]}
            file = base64.b64encode(edited(mode)).decode()
            return 200, {"created": 0, "data": [{"b64_json": file}]}
        *images, text = json.loads(body)["messages"][-1]["content"]
        prompt = text["text"]
        mode = prompt.partition("mode: ")[2].partition("\n")[0]
        if "Propose ONE" in prompt:
            kind, answer = "propose", SCENE.answer_negative
            if mode == "same answer":
                answer = SCENE.answer_positive.upper()
            said: dict[str, Any] = {"change": f"Change it. mode: {mode}", "answer": answer}
            if mode == "no change":
                said = {"change": None}
        else:
            kind = "verify"
            verdict = "INVALID" if mode == "refused" else "VALID"
            said = {"verdict": verdict, "reason": "a seam is left"}
        assert len(images) == (1 if kind == "propose" else 2)
        for image in images:
            assert image["image_url"]["url"].startswith("data:image/png;base64,")
        with self.lock:
            self.calls[kind] += 1
        return 200, {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": f"Well. {json.dumps(said)}"},
                }
            ],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        }


def _fields(content_type: str, body: bytes) -> dict[str, bytes]:
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode() + b"\n\n" + body)
    return {
        str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)
        for part in message.get_payload()
    }


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    running = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, reply = running.reply(self.path, self.headers, body)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        running.url = f"http://127.0.0.1:{http.server_port}/v1"
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield running
        http.shutdown()


def row(mode: str) -> VQARow:
    return VQARow(
        row_id=mode,
        problem=f"<image>{SCENE.question} mode: {mode}",
        images=(png_file(SCENE.image_positive),),
        answer=SCENE.answer_positive,
    )


def calls(server, work, *, most_usd=None, **image_changes) -> EditCalls:
    chat = LiteLLMEndpoint(
        EndpointSettings(
            model="openai/chat",
            base_url=server.url,
            api_key="none",
            tries=2,
            first_pause_s=0.0,
            usd_per_million_in=1.0,
            usd_per_million_out=10.0,
        )
    )
    settings = {"model": "openai/image", "usd_per_edit": 0.04, **image_changes}
    editor = LiteLLMImageEndpoint(
        ImageEndpointSettings(
            base_url=server.url, api_key="none", tries=2, first_pause_s=0.0, **settings
        )
    )
    return EditCalls(chat, editor, work, Ledger(most_usd))


def run(server, folder, modes, **changes):
    return edit_pairs(
        [row(mode) for mode in modes],
        calls(server, folder / "work", **changes),
        ImageStore(folder),
        EditSettings(source="set", concurrency=2),
        lambda first, second: first.casefold() == second.casefold(),
    )


def test_every_way_an_edit_can_go_is_told_apart(server, tmp_path):
    report = run(server, tmp_path, MODES)
    found = {each.row_id: (each.lost_at, each.reason) for each in report.outcomes}
    local = EditStage.LOCAL
    assert found["edited"][0] is found["photo"][0] is found["larger"][0] is None
    assert found["broken"][0] is found["empty"][0] is EditStage.EDITED
    assert found["identical"] == (local, LocalityFault.NOTHING)
    assert found["bright"] == (local, LocalityFault.LIGHT)
    assert found["restyled"][0] is local
    assert found["blurred"][0] is local
    assert found["many"] == (local, LocalityFault.SPREAD)
    assert found["wide"] == (local, LocalityFault.SHAPE)
    assert found["same answer"][0] is EditStage.NEW_ANSWER
    assert found["no change"][0] is EditStage.PROPOSED
    assert found["refused"] == (EditStage.VALID, "INVALID: a seam is left")
    # A verdict is only paid for where measurement found nothing.
    assert server.calls == {"propose": 14, "edit": 12, "verify": 4}
    assert report.paid_usd == pytest.approx(18 * 0.002 + 12 * 0.04)
    assert [(s.seen, s.kept) for s in report.stages] == [
        (14, 14),
        (14, 13),
        (13, 12),
        (12, 10),
        (10, 4),
        (4, 3),
    ]


def test_an_edit_becomes_two_pairs_of_one_size_and_format(server, tmp_path):
    report = run(server, tmp_path, ["larger"])
    assert len(report.pairs) == 2
    first = next(p for p in report.pairs if p.answer == SCENE.answer_positive)
    second = next(p for p in report.pairs if p.answer == SCENE.answer_negative)
    assert (first.positive, first.negative) == (second.negative, second.positive)
    assert first.question.startswith(SCENE.question)
    store = ImageStore(tmp_path)
    assert store.open(first.positive.image).tobytes() == SCENE.image_positive.tobytes()
    shape = (first.negative.image.format, first.negative.image.width, first.negative.image.height)
    assert shape == ("png", 224, 224)
    box, true = first.positive.box, SCENE.box
    assert box.left <= true.left + 4 <= true.right - 4 <= box.right
    assert box.top <= true.top + 4 <= true.bottom - 4 <= box.bottom
    assert len({pair.provenance.group for pair in report.pairs}) == 1


def test_nothing_is_paid_for_twice(server, tmp_path):
    whole = run(server, tmp_path / "whole", ["edited", "bright", "refused"])
    run(server, tmp_path / "b", ["edited"])
    server.calls.clear()
    again = run(server, tmp_path / "b", ["edited", "bright", "refused"])
    assert server.calls == {"propose": 2, "edit": 2, "verify": 1}
    assert (again.pairs, again.outcomes) == (whole.pairs, whole.outcomes)
    server.calls.clear()
    once_more = run(server, tmp_path / "b", ["edited", "bright", "refused"])
    assert not server.calls
    assert once_more.paid_usd == 0
    next((tmp_path / "b" / "work" / "files").iterdir()).unlink()
    run(server, tmp_path / "b", ["edited", "bright", "refused"])
    assert server.calls["edit"] <= 2  # a file that is gone is asked for again, nothing else is
    assert server.calls["propose"] == 0


def test_the_bill_is_told_before_and_shrinks_with_what_is_paid(server, tmp_path):
    rows = [row("edited"), row("bright"), row("no change")]
    due = calls(server, tmp_path / "work").bill(rows)
    assert (due.proposals, due.edits, due.verdicts) == (3, 3, 3)
    assert due.prompt_tokens > 3 * 3 * 224 * 224 // 750
    assert not server.calls
    run(server, tmp_path, ["edited", "bright", "no change"])
    due = calls(server, tmp_path / "work").bill(rows)
    assert (due.proposals, due.edits, due.verdicts) == (0, 0, 0)


def test_the_budget_stops_the_asking(server, tmp_path):
    report = run(server, tmp_path, ["edited", "photo", "larger", "bright"], most_usd=0.03)
    assert not report.outcomes or report.paid_usd < 0.15
    ((why, count),) = report.unasked.items()
    assert "budget of $0.03" in why
    assert count + len(report.outcomes) == 4
    assert server.calls["edit"] <= 2  # those that were under way


def test_a_budget_without_a_price_is_refused(server, tmp_path):
    with pytest.raises(JudgeError, match="expected a price"):
        run(server, tmp_path, ["edited"], most_usd=5.0, usd_per_edit=None)
    assert server.calls["edit"] == 1


def test_a_busy_endpoint_leaves_the_row_for_the_next_run(server, tmp_path):
    server.faults.extend([503, 503])
    report = run(server, tmp_path, ["edited"])
    assert not report.outcomes
    ((why, _),) = report.unasked.items()
    assert "2 tries failed" in why
    assert len(run(server, tmp_path, ["edited"]).pairs) == 2
    server.faults.append(401)
    with pytest.raises(JudgeError, match="refuses"):
        run(server, tmp_path, ["photo"])


def test_an_address_in_a_reply_is_not_followed(server, tmp_path):
    with pytest.raises(JudgeError, match="not followed"):
        run(server, tmp_path, ["address"])


@pytest.mark.parametrize(
    ("reply", "change"),
    [
        ('{"change": "Paint it red.", "answer": "red"}', "Paint it red."),
        ('Hm {x}\n```json\n{"change": "Add\\none", "answer": 4}\n```', "Add one"),
        ('{"change": null}', ""),
        ('{"change": "", "answer": "x"}', ""),
        ('{"change": "x", "answer": " "}', ""),
        ("I cannot.", ""),
        ('{"change": ["x"], "answer": "y"}', ""),
    ],
)
def test_proposals_are_read_from_what_models_write(reply, change):
    assert read_proposal(reply, 0.0).change == change


def test_drawn_pairs_of_every_difficulty_are_local_by_this_measure():
    """What is local by construction passes, whatever its size; limits are for the rest."""
    for family in ("shapes", "grid", "dice", "bars", "table"):
        for difficulty in (0.4, 1.0):
            pair = draw_pair(family, 2, difficulty)
            found = measure(pair.image_positive, pair.image_negative)
            assert fault(found, LocalityLimits(least_changed=0)) is None, (family, found)
            assert found.shift <= found.noise < 0.5  # the soft rim of the change at most
