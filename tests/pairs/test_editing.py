"""Editing against a real local server that edits well, badly, not at all, and everywhere."""

from __future__ import annotations

import base64
import email
import io
import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from typer.testing import CliRunner

from contextrl.pairs.edit_bill import bill
from contextrl.pairs.edit_calls import EditCalls
from contextrl.pairs.edit_prompts import read_proposal
from contextrl.pairs.editing import EditSettings, EditStage, edit_pairs
from contextrl.pairs.endpoints import EndpointSettings, LiteLLMEndpoint
from contextrl.pairs.errors import JudgeError, PairFileError
from contextrl.pairs.image_endpoint import ImageEndpointSettings, LiteLLMImageEndpoint
from contextrl.pairs.images import ImageStore, png_file
from contextrl.pairs.ledger import Ledger
from contextrl.pairs.locality import LocalityFault, LocalityLimits, fault, measure
from contextrl.pairs.scenes import draw_pair
from contextrl.pairs.store import read_manifest
from contextrl.pairs.vqa import VQARow
from contextrl.scripts.cli_mine import app

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


Reply = tuple[int, dict[str, Any]]
POLICY = {
    "error": {
        "message": "Your request was rejected by our safety system.",
        "code": "moderation_blocked",
        "type": "image_generation_user_error",
    }
}


class Server:
    """Speaks OpenAI's chat and images/edits; `faults` are status codes, played first."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.faults: deque[int] = deque()
        self.instead: Callable[[str, str], Reply | None] = lambda step, mode: None
        """A reply to a step (propose, edit, verify) about a mode in place of the usual one."""
        self.draw: Callable[[str, Image.Image], bytes] = lambda mode, shown: edited(mode)
        """The edited file, by the mode and what was shown."""
        self.sizes: list[str] = []
        """Asked of the image model, and that of the image it was shown."""
        self.url = ""
        self.lock = threading.Lock()

    def reply(self, path: str, headers: Any, body: bytes) -> Reply:
        with self.lock:
            if self.faults:
                return self.faults.popleft(), {"error": {"message": "no"}}
        if path.endswith("/images/edits"):
            fields = _fields(headers["content-type"], body)
            mode = fields["prompt"].decode().partition("mode: ")[2]
            shown = Image.open(io.BytesIO(fields.get("image[]") or fields["image"]))
            shown.load()
            with self.lock:
                self.calls["edit"] += 1
                self.sizes.append(
                    f"{fields.get('size', b'').decode()} {shown.width}x{shown.height}"
                )
            other = self.instead("edit", mode)
            if other is not None:
                return other
            if mode == "address":
                return 200, {"created": 0, "data": [{"url": "http://127.0.0.1:1/secret"}]}
            file = base64.b64encode(self.draw(mode, shown)).decode()
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
        return self.instead(kind, mode) or chat_reply(f"Well. {json.dumps(said)}")


def chat_reply(text: str | None, finish: str = "stop") -> Reply:
    """No text: no choice at all."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text},
    }
    return 200, {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [choice] if text is not None else [],
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


def calls(server, work, *, most_usd=None, dry=False, most_refusals=10, **image_changes):
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
    ledger = Ledger(work, most_usd)
    return EditCalls(chat, editor, work, ledger, dry=dry, most_refusals=most_refusals)


def same(first: str, second: str) -> bool:
    return first.casefold() == second.casefold()


def run(server, folder, modes, *, concurrency=2, sizes=(), **changes):
    return edit_pairs(
        [row(mode) if isinstance(mode, str) else mode for mode in modes],
        calls(server, folder / "work", **changes),
        ImageStore(folder),
        EditSettings(source="set", concurrency=concurrency, image_sizes=sizes),
        same,
    )


def due(server, folder, rows, **changes):
    there = calls(server, folder / "work", dry=True, **changes)
    return bill(rows, there, EditSettings(source="set"), same)


def lost(report):
    return {each.row_id: each.lost_at for each in report.outcomes}


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
    assert report.spent.last_run_usd == pytest.approx(18 * 0.002 + 12 * 0.04)
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
    assert once_more.spent.last_run_usd == 0
    next((tmp_path / "b" / "work" / "files").iterdir()).unlink()
    run(server, tmp_path / "b", ["edited", "bright", "refused"])
    assert server.calls["edit"] <= 2  # a file that is gone is asked for again, nothing else is
    assert server.calls["propose"] == 0


def test_the_bill_is_told_before_and_shrinks_with_what_is_paid(server, tmp_path):
    rows = [row("edited"), row("bright"), row("no change")]
    told = due(server, tmp_path, rows)
    assert (told.proposals, told.edits, told.verdicts) == (3, 3, 3)
    assert told.prompt_tokens > 3 * 3 * 224 * 224 // 750
    assert told.edit_usd == pytest.approx(0.12)
    assert told.total_usd == pytest.approx(told.chat_usd + 0.12)
    assert not server.calls
    assert not (tmp_path / "work").exists()
    run(server, tmp_path, ["edited", "bright", "no change"])
    told = due(server, tmp_path, rows)
    assert (told.proposals, told.edits, told.verdicts) == (0, 0, 0)
    assert (told.answered, told.total_usd) == (3, 0)


def test_the_bill_asks_what_the_run_would_ask(server, tmp_path):
    two_images = row("edited").model_copy(update={"images": row("edited").images * 2})
    rows = [two_images, row("edited").model_copy(update={"answer": " "}), *[row("edited")] * 3]
    told = due(server, tmp_path, rows)
    assert (told.rows, told.unusable, told.answered) == (5, 2, 2)
    assert (told.proposals, told.edits, told.verdicts) == (1, 1, 1)
    # Only the verdict is missing: the chat failed on it.
    server.instead = lambda step, mode: (503, {}) if step == "verify" else None
    assert run(server, tmp_path, ["edited"]).unasked
    told = due(server, tmp_path, [row("edited")])
    assert (told.proposals, told.edits, told.verdicts, told.edit_usd) == (0, 0, 1, 0)
    assert told.prompt_tokens > 2 * 224 * 224 // 750
    server.instead = lambda step, mode: None
    server.calls.clear()
    run(server, tmp_path, ["edited"])
    assert server.calls == {"verify": 1}


def test_the_budget_stops_the_asking(server, tmp_path):
    report = run(server, tmp_path, ["edited", "photo", "larger", "bright"], most_usd=0.03)
    assert not report.outcomes or report.spent.last_run_usd < 0.15
    ((why, count),) = report.unasked.items()
    assert "budget of $0.03" in why
    assert count + len(report.outcomes) == 4
    assert server.calls["edit"] <= 2  # those that were under way


def test_a_budget_without_a_price_is_refused_before_anything_is_paid(server, tmp_path):
    with pytest.raises(JudgeError, match="openai/image: expected a price"):
        run(server, tmp_path, ["edited"], most_usd=5.0, usd_per_edit=None)
    assert not server.calls
    # A server of one's own may well be free.
    assert len(run(server, tmp_path, ["edited"], most_usd=5.0, usd_per_edit=0.0).pairs) == 2


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


@pytest.mark.parametrize(
    ("step", "stage"),
    [
        ("propose", EditStage.PROPOSED),
        ("edit", EditStage.EDITED),
        ("verify", EditStage.VALID),
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_row_is_an_outcome_and_the_others_go_on(server, tmp_path, step, stage, status):
    def refuse(asked: str, mode: str) -> Reply | None:
        return (status, POLICY) if (asked, mode) == (step, "larger") else None

    server.instead = refuse
    report = run(server, tmp_path, ["edited", "larger", "photo"])
    assert len(report.pairs) == 4
    assert not report.unasked
    refused = report.outcomes[1]
    assert (refused.row_id, refused.lost_at) == ("larger", stage)
    assert "safety system" in refused.reason
    # It was not kept: a server that has changed its mind is heard.
    server.instead = lambda step, mode: None
    assert len(run(server, tmp_path, ["edited", "larger", "photo"]).pairs) == 6


@pytest.mark.parametrize("status", [401, 403, 404, 402])
def test_what_meets_every_row_stops_the_run_at_once(server, tmp_path, status):
    server.instead = lambda step, mode: (status, {"error": {"message": "no"}})
    with pytest.raises(JudgeError, match="refuses"):
        run(server, tmp_path, ["edited", "photo", "larger"], concurrency=1)
    assert server.calls["propose"] <= 2  # one may have been under way


def test_nothing_but_refusals_stops_the_run_and_a_few_at_its_start_do_not(server, tmp_path):
    def refuse(step: str, mode: str) -> Reply | None:
        return (400, POLICY) if step == "edit" and mode != "edited" else None

    server.instead = refuse
    modes = ["bright", "photo", "larger", "many", "edited"]
    with pytest.raises(JudgeError, match=r"first 3 questions got no answer.*safety system"):
        run(server, tmp_path, modes, concurrency=1, most_refusals=3)
    assert server.calls["edit"] in (3, 4)  # one may have been under way
    assert len(run(server, tmp_path, modes, concurrency=1).pairs) == 2
    # What an earlier run was answered counts: this one may well be left with refused rows only.
    again = run(server, tmp_path, modes[::-1], concurrency=1, most_refusals=3)
    assert len(again.outcomes) == 5


FAILED = {
    "cut off": ("propose", chat_reply('{"change": "x", "an', "length"), "cut off at 2000 tokens"),
    "all thought": ("propose", chat_reply("", "length"), "cut off"),
    "withheld": ("propose", chat_reply("", "content_filter"), "content filter"),
    "no choice": ("propose", chat_reply(None), "empty"),
    "empty verdict": ("verify", chat_reply(" "), "empty"),
    "no image": ("edit", (200, {"created": 0, "data": []}), "held no image"),
    "half an image": (
        "edit",
        (200, {"created": 0, "data": [{"b64_json": base64.b64encode(b"\x89PNG").decode()}]}),
        "whole image file",
    ),
}


@pytest.mark.parametrize("name", FAILED)
def test_a_failed_reply_is_said_and_not_kept(server, tmp_path, name):
    step, reply, why = FAILED[name]
    server.instead = lambda asked, mode: reply if asked == step else None
    report = run(server, tmp_path, ["edited"])
    (outcome,) = report.outcomes
    assert outcome.lost_at is not None
    assert why in outcome.reason
    server.instead = lambda asked, mode: None
    server.calls.clear()
    assert len(run(server, tmp_path, ["edited"]).pairs) == 2
    assert server.calls[step] == 1


def test_rows_that_ask_the_same_at_once_pay_once(server, tmp_path):
    report = run(server, tmp_path, ["edited"] * 4, concurrency=4)
    assert server.calls == {"propose": 1, "edit": 1, "verify": 1}
    assert len(report.outcomes) == 4
    assert report.spent.last_run_usd == pytest.approx(0.044)


def test_another_server_under_the_same_name_is_asked_itself(server, tmp_path):
    run(server, tmp_path, ["edited"])
    server.calls.clear()
    server.url += "/"
    run(server, tmp_path, ["edited"])
    assert not server.calls
    server.url = server.url.replace("127.0.0.1", "localhost")
    run(server, tmp_path, ["edited"])
    assert server.calls == {"propose": 1, "edit": 1, "verify": 1}


def test_what_was_paid_is_kept_over_all_runs(server, tmp_path):
    server.instead = lambda step, mode: chat_reply(" ") if step == "verify" else None
    first = run(server, tmp_path, ["edited"])
    assert first.outcomes[0].cost_usd == pytest.approx(0.044)
    assert first.spent.last_run_usd == first.spent.all_runs_usd == pytest.approx(0.044)
    with (tmp_path / "work" / "paid.jsonl").open("a") as file:
        file.write('{"key": "k", "mod')  # as if killed while it was written
    server.instead = lambda step, mode: None
    second = run(server, tmp_path, ["edited", "bright"])
    assert [each.cost_usd for each in second.outcomes] == pytest.approx([0.046, 0.042])
    assert second.spent.last_run_usd == pytest.approx(0.044)
    assert second.spent.all_runs_usd == pytest.approx(0.088)
    third = run(server, tmp_path, ["edited", "bright"])
    assert third.outcomes == second.outcomes
    assert (third.spent.last_run_usd, third.spent.unpriced_calls) == (0, 0)
    assert third.spent.all_runs_usd == pytest.approx(0.088)
    unpriced = run(server, tmp_path, ["photo"], usd_per_edit=None)
    assert unpriced.spent.unpriced_calls == 1


SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))


def photo_row() -> VQARow:
    """640 x 480, as no such model draws."""
    page = Image.new("RGB", (640, 480), "#c8d0d8")
    page.paste(SCENE.image_positive, (300, 100))
    return row("photo").model_copy(update={"images": (png_file(page),)})


def redraw(mode: str, shown: Image.Image) -> bytes:
    """Changes one place of what it is shown."""
    page = shown.copy()
    left, top = shown.width // 2, shown.height // 2
    page.paste("#a01010", (left, top, left + shown.width // 12, top + shown.height // 12))
    return png_file(page)


def redraw_small(mode: str, shown: Image.Image) -> bytes:
    """The same at a size of its own choice."""
    page = Image.open(io.BytesIO(redraw(mode, shown)))
    return png_file(page.resize((page.width // 2, page.height // 2), Image.Resampling.LANCZOS))


def test_an_image_model_of_fixed_sizes_is_shown_one_and_its_edit_cut_back(server, tmp_path):
    server.draw = redraw_small
    report = run(server, tmp_path, [photo_row()], sizes=SIZES)
    assert lost(report) == {"photo": None}
    assert server.sizes == ["1536x1024 1536x1024"]
    (outcome,) = report.outcomes
    at = outcome.canvas.image
    assert (at.left, at.top, at.right, at.bottom) == (85, 0, 1450, 1024)
    assert outcome.locality.stretch == 1
    assert {(p.positive.image.width, p.positive.image.height) for p in report.pairs} == {(640, 480)}
    # The change lies where it was made: (768, 512) of the canvas is the middle of the original.
    box = outcome.locality.box
    assert abs(box.left - 320) <= 3
    assert abs(box.top - 240) <= 3
    assert box.right - box.left == pytest.approx(128 * 640 / 1365, abs=6)
    server.sizes.clear()
    run(server, tmp_path, [photo_row()])
    assert server.sizes == [" 640x480"]  # another question than before, and no size asked for


@pytest.mark.parametrize("size", [(300, 1500), (1600, 1200)])
def test_what_scaling_alone_does_to_an_image_is_no_edit(server, tmp_path, size):
    """A sharp drawing, larger than its place on the canvas or nearly as large."""
    page = Image.new("RGB", size, "white")
    lines = ImageDraw.Draw(page)
    for at in range(0, sum(size), 12):
        lines.line((at, 0, 0, at), fill="black")
    tall = row("photo").model_copy(update={"images": (png_file(page),)})
    server.draw = redraw
    report = run(server, tmp_path, [tall], sizes=SIZES)
    assert lost(report) == {"photo": None}
    # Both sides went through it, so that sharpness does not tell the edit.
    store = ImageStore(tmp_path)
    sides = [
        store.open(side.image) for side in (report.pairs[0].positive, report.pairs[0].negative)
    ]
    found = measure(*sides)
    assert found.box == report.outcomes[0].locality.box
    assert found.noise < 2


def test_a_reply_of_another_shape_than_the_canvas_is_still_refused(server, tmp_path):
    def square(mode: str, shown: Image.Image) -> bytes:
        return png_file(shown.resize((1024, 1024)))

    server.draw = square
    report = run(server, tmp_path, [photo_row()], sizes=SIZES)
    assert report.outcomes[0].reason == LocalityFault.SHAPE


def test_a_partial_set_goes_on_by_the_same_command_and_says_what_it_cost(server, tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.png").write_bytes(png_file(SCENE.image_positive))
    lines = [
        {"images": ["a.png"], "problem": f"{SCENE.question} mode: {mode}", "answer": "none"}
        for mode in ("edited", "larger", "bright")
    ]
    (rows / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "pairs"
    ask = ["edit", rows, "--chat-model", "openai/c", "--image-model", "openai/i", "--out", out]
    ask += ["--chat-base-url", server.url, "--image-base-url", server.url, "--concurrency", 1]
    ask += ["--usd-per-million-in", 1, "--usd-per-million-out", 10, "--usd-per-edit", 0.04]

    def invoke(*more: object):
        return CliRunner().invoke(app, [str(each) for each in (*ask, *more)])

    half = invoke("--most-usd", 0.03, "--json")
    assert half.exit_code == 1
    assert "run the same command again" in str(half.exception)
    assert read_manifest(out).unasked == json.loads(half.stdout)["unasked"] == 3
    assert read_manifest(out).spent.last_run_usd == pytest.approx(0.042)
    whole = invoke("--json")
    assert whole.exit_code == 0, whole.output
    manifest = json.loads(whole.stdout)
    assert (manifest["n_pairs"], manifest["unasked"]) == (4, 0)
    assert manifest["spent"]["last_run_usd"] == pytest.approx(0.088)
    assert manifest["spent"]["all_runs_usd"] == pytest.approx(0.13)
    told = [json.loads(line) for line in (out / "outcomes.jsonl").read_text().splitlines()]
    assert sum(each["cost_usd"] for each in told) == pytest.approx(0.13)
    assert isinstance(invoke().exception, PairFileError)
    # What is complete gives way to a complete set only, and that is as cheap as before.
    server.instead = lambda step, mode: (503, {})
    fresh = invoke("--overwrite", "--tries", 1, "--work", tmp_path / "other")
    assert "left alone" in str(fresh.exception)
    assert read_manifest(out).n_pairs == 4
    told = invoke("--overwrite")
    assert "paid now $0.0000, by all runs $0.1300" in told.stdout


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
