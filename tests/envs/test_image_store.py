"""Pulls from a real local registry that misbehaves, and a disk budget on a real engine."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import sqlite3
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from contextrl.envs.builder import image_exists
from contextrl.envs.errors import ImageError
from contextrl.envs.image_store import ImageStore
from contextrl.envs.images import ensure_image
from contextrl.envs.pulling import pull
from contextrl.envs.supply import FETCHES_AT_ONCE, SupplyingProvider

pytestmark = pytest.mark.docker

MB = 1 << 20
FAST = {"rate_delays_s": (0.05, 0.1), "broken_delays_s": (0.05,)}


class Registry(http.server.ThreadingHTTPServer):
    """The pull half of the distribution API, on loopback. `faults` are spent one per request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, str] = {}
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.cuts: set[str] = set()
        """Blobs of which only one half comes, once."""
        self.starts: list[int] = []
        """Where each blob was asked to begin."""
        self.manifests_at_once = self.most_at_once = 0
        self.delay_s = 0.0
        self.lock = threading.Lock()

    def image(self, name: str, *, size: int, shared: bytes = b"") -> str:
        """An image of incompressible bytes, named as the engine asks for it."""
        layers = [layer for layer in (shared, _layer(name, size)) if layer]
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["x"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(each) for each in layers]},
                "history": [{"created": "2000-01-01T00:00:00Z", "created_by": _digest(each)}
                            for each in layers],
            }
        ).encode()  # fmt: skip
        packed = [gzip.compress(each, 1, mtime=0) for each in layers]
        for blob in (config, *packed):
            self.blobs[_digest(blob)] = blob
        docker = "application/vnd.docker"
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{docker}.distribution.manifest.v2+json",
            "config": _described(f"{docker}.container.image.v1+json", config),
            "layers": [_described(f"{docker}.image.rootfs.diff.tar.gzip", each) for each in packed],
        }
        self.manifests[name] = json.dumps(manifest)
        return f"127.0.0.1:{self.server_address[1]}/{name}:latest"


def _layer(name: str, size: int) -> bytes:
    stream, content = io.BytesIO(), hashlib.shake_256(name.encode()).digest(size)
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo(f"{name.replace('/', '-')}.bin")
        member.size = size
        tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _described(kind: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(blob), "digest": _digest(blob)}


class Handler(http.server.BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        parts = self.path.split("/")
        registry = self.server
        with registry.lock:
            registry.asked.append(self.path)
            kind = parts[-2] if len(parts) > 3 else ""
            due = registry.faults and registry.faults[0].startswith(kind) and kind
            fault = registry.faults.pop(0).partition(" ")[2] if due else ""
        if kind == "manifests":
            with registry.lock:
                registry.manifests_at_once += 1
                registry.most_at_once = max(registry.most_at_once, registry.manifests_at_once)
            time.sleep(registry.delay_s)
            with registry.lock:
                registry.manifests_at_once -= 1
        if fault.isdigit():
            code = "TOOMANYREQUESTS" if fault == "429" else "UNAVAILABLE"
            body = json.dumps({"errors": [{"code": code, "message": "slow down"}]}).encode()
            return self._say(int(fault), body, "application/json")
        if not kind:
            return self._say(200, b"{}", "application/json")
        if kind == "manifests":
            manifest = registry.manifests.get("/".join(parts[2:-2]))
            if manifest is None:
                return self._say(
                    404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', "application/json"
                )
            return self._say(200, manifest.encode(), json.loads(manifest)["mediaType"])
        blob = registry.blobs[parts[-1]]
        start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        with registry.lock:
            registry.starts.append(start)
            cut = parts[-1] in registry.cuts
            registry.cuts.discard(parts[-1])
        return self._say(
            206 if start else 200,
            blob[start:],
            "application/octet-stream",
            cut=cut,
            whole=len(blob),
        )

    do_HEAD = do_GET

    def _say(
        self, status: int, body: bytes, kind: str, *, cut: bool = False, whole: int = 0
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Docker-Content-Digest", _digest(body))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            first = whole - len(body)
            self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def registry(docker_client):
    with Registry() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
    for image in docker_client.images.list():
        for tag in image.tags:
            if tag.startswith(f"127.0.0.1:{server.server_address[1]}/"):
                docker_client.api.remove_image(tag, force=True)


@pytest.fixture
def make_store(docker_client, tmp_path):
    return lambda budget=None: ImageStore(
        docker_client, budget_bytes=budget, ledger=tmp_path / "images.sqlite"
    )


def test_a_rate_limit_is_waited_out(docker_client, registry):
    image = registry.image("swe/limited", size=1000)
    registry.faults = ["manifests 429", "manifests 429"]
    assert pull(docker_client, image, **FAST) == image
    assert image_exists(docker_client, image)


def test_a_limit_that_stays_is_an_image_error(docker_client, registry):
    image = registry.image("swe/refused", size=1000)
    registry.faults = ["manifests 429"] * 9
    with pytest.raises(ImageError, match=r"could not be pulled .*(toomanyrequests|slow down)"):
        pull(docker_client, image, **FAST)


def test_a_layer_that_comes_broken_is_an_error_or_fetched_again(docker_client, registry):
    image = registry.image("swe/broken", size=MB)
    layer = json.loads(registry.manifests["swe/broken"])["layers"][0]["digest"]
    good, registry.blobs[layer] = registry.blobs[layer], registry.blobs[layer][:-1] + b"!"
    with pytest.raises(ImageError, match="could not be pulled"):
        pull(docker_client, image, broken_delays_s=())
    assert not image_exists(docker_client, image)
    registry.blobs[layer] = good
    assert pull(docker_client, image) == image


def test_a_transfer_that_was_cut_off_goes_on_where_it_stopped(docker_client, registry):
    image = registry.image("swe/resumed", size=4 * MB)
    registry.cuts = {json.loads(registry.manifests["swe/resumed"])["layers"][0]["digest"]}
    assert pull(docker_client, image, broken_delays_s=()) == image
    assert registry.cuts == set()
    assert any(start > 0 for start in registry.starts), "the rest was asked for alone"


def test_what_another_try_cannot_mend_fails_at_once(docker_client, registry):
    nothing = f"127.0.0.1:{registry.server_address[1]}/swe/nothing"
    began = time.monotonic()
    with pytest.raises(ImageError, match=r"manifest unknown|not found"):
        pull(docker_client, nothing)
    with pytest.raises(ImageError, match="refused"):
        pull(docker_client, "127.0.0.1:9/swe/nothing")
    assert time.monotonic() - began < 5


def test_a_stopped_run_waits_no_longer(docker_client, registry):
    image = registry.image("swe/stopped", size=1000)
    registry.faults = ["manifests 429"] * 9
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    with pytest.raises(ImageError, match="stopped"):
        pull(docker_client, image, rate_delays_s=(60.0,), stop=stop)
    assert time.monotonic() - began < 10


def test_the_least_recently_used_images_of_ours_go_first(docker_client, registry, make_store):
    shared = _layer("shared", 4 * MB)
    names = ["users", "old", "kept", "new", "newest"]
    images = {name: registry.image(f"swe/{name}", size=MB, shared=shared) for name in names}
    pull(docker_client, images["users"])
    store = make_store(budget=7 * MB)  # the shared layer once, and three of the others
    for name in ("old", "kept"):
        store.added(pull(docker_client, images[name]))
    store.used(images["old"])  # and so `kept` is now the oldest
    store.used(images["users"])  # which does not make it ours
    for name in ("new", "newest"):
        store.added(pull(docker_client, images[name]))
    there = {name for name in names if image_exists(docker_client, images[name])}
    assert there == set(names) - {"kept"}
    assert [image.name for image in store.owned()] == [images[n] for n in ("old", "new", "newest")]


def test_images_in_use_and_images_that_became_the_users_stay(docker_client, registry, make_store):
    used, tagged, idle = (registry.image(f"swe/{n}", size=MB) for n in ("used", "tagged", "idle"))
    store = make_store(budget=1)
    unlimited = make_store()
    for image in (used, tagged, idle):
        unlimited.added(pull(docker_client, image))
    container = docker_client.api.create_container(used, command=["x"])["Id"]
    mine = f"127.0.0.1:{registry.server_address[1]}/swe/mine"
    docker_client.api.tag(tagged, mine)
    try:
        with store.pinned(idle):
            assert store.make_room() == []
        assert store.make_room() == [idle]
    finally:
        docker_client.api.remove_container(container, force=True)
    assert image_exists(docker_client, tagged)
    assert image_exists(docker_client, f"{mine}:latest")
    assert store.make_room() == [used]


def test_an_evicted_image_is_fetched_again(docker_client, registry, make_store, make_task):
    one, two = (make_task(image=registry.image(f"swe/{n}", size=MB)) for n in ("one", "two"))
    store = make_store(budget=MB + MB // 2)
    started = []

    class Provider:
        def start(self, task):
            if not image_exists(docker_client, task.image):
                raise ImageError(f"image {task.image} not found")
            started.append(task.image)

        def close(self):
            pass

    provider = SupplyingProvider(
        Provider(), lambda task: ensure_image(docker_client, task, store=store), store=store
    )
    for task in (one, two, one, two):
        provider.start(task)
    provider.close()
    assert started == [one.image, two.image, one.image, two.image]
    assert [image.name for image in store.owned()] == [two.image]


def test_the_next_images_come_ahead_a_few_at_a_time(docker_client, registry, make_task):
    tasks = [make_task(image=registry.image(f"swe/a{n}", size=1000)) for n in range(10)]
    registry.delay_s = 0.2

    def asked_for() -> set[str]:
        return {path for path in registry.asked if "/manifests/latest" in path}

    provider = SupplyingProvider(_Starts(), lambda task: ensure_image(docker_client, task))
    provider.prefetch(tasks)
    assert len(asked_for()) < 10, "prefetching does not wait"
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(provider.start, tasks))
    assert registry.most_at_once <= FETCHES_AT_ONCE
    # Each image is asked for once, whether ahead or by its own start.
    assert len(asked_for()) == 10
    provider.close()


class _Starts:
    def start(self, task):
        pass

    def close(self):
        pass


def test_a_ledger_that_is_no_database_is_put_aside(docker_client, tmp_path, make_store):
    (tmp_path / "images.sqlite").write_text("not a database at all, but long enough to be one")
    store = make_store(budget=1)
    assert store.owned() == []
    assert (tmp_path / "images.broken").exists()
    assert (
        sqlite3.connect(tmp_path / "images.sqlite").execute("SELECT * FROM images").fetchall() == []
    )


@pytest.fixture
def make_task(tiny_task):
    return lambda **fields: tiny_task.model_copy(update={"repo": "no/recipe", **fields})
