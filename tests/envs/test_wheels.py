"""Wheels of a past date, from a real local index that tells when each file was uploaded."""

from __future__ import annotations

import http.server
import io
import json
import threading
import zipfile

import pytest

from contextrl.envs.errors import ImageError
from contextrl.envs.wheels import wheelhouse

UPLOADS = {"1.0": "2023-01-01T00:00:00Z", "2.0": "2025-01-01T00:00:00Z"}


def wheel(version: str) -> bytes:
    stream, info = io.BytesIO(), f"dated-{version}.dist-info"
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("dated.py", "")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: dated\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return stream.getvalue()


class Index(http.server.BaseHTTPRequestHandler):
    """PyPI's JSON form of the simple API."""

    def do_GET(self) -> None:
        name = self.path.rstrip("/").rpartition("/")[2]
        kind, body = "application/vnd.pypi.simple.v1+json", b""
        if name == "dated":
            files = [
                {"filename": f"dated-{version}-py3-none-any.whl", "hashes": {}, "upload-time": time,
                 "url": f"/files/dated-{version}-py3-none-any.whl"}
                for version, time in UPLOADS.items()
            ]  # fmt: skip
            found = {"meta": {"api-version": "1.1"}, "name": "dated", "files": files}
            body = json.dumps(found).encode()
        elif name.endswith(".whl"):
            kind, body = "application/zip", wheel(name.split("-")[1])
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_address[1]}/simple")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        yield
        server.shutdown()


def test_what_was_uploaded_later_is_not_taken(index, tmp_path):
    def names(uploaded_before: str) -> list[str]:
        found = wheelhouse(["dated"], uploaded_before=uploaded_before, cache=tmp_path)
        return [file.name for file in found.iterdir()]

    assert names("") == ["dated-2.0-py3-none-any.whl"]
    assert names("2024-06-01") == ["dated-1.0-py3-none-any.whl"]
    with pytest.raises(ImageError, match="could not fetch wheels"):
        names("2022-01-01")
    assert [folder for folder in tmp_path.iterdir() if folder.name.startswith(".partial-")] == []
