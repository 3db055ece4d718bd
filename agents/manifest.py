"""What a run folder says about itself: configuration, versions, and whether the run is complete."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from contextrl.agents.errors import RunStoreError
from contextrl.agents.types import SCHEMA_VERSION
from contextrl.envs.types import Record

MANIFEST = "manifest.json"
RECORDED_PACKAGES = ("contextrl", "docker", "jinja2", "pydantic", "torch", "transformers", "verl")


class Manifest(Record):
    schema_version: int = SCHEMA_VERSION
    config: dict[str, Any]
    """Resolved; what makes two runs comparable."""
    config_digest: str
    versions: dict[str, str]
    created: str
    """ISO 8601, UTC."""
    finished: str = ""
    """Empty while the run is going on, and after it was interrupted."""
    counts: dict[str, int] = Field(default_factory=dict)
    """Trajectories by stop reason, as of `finished`."""

    @classmethod
    def new(cls, config: Mapping[str, Any]) -> Self:
        config = dict(json.loads(json.dumps(config)))  # as it reads back
        return cls(
            config=config, config_digest=config_digest(config), versions=_versions(), created=_now()
        )

    def completed(self, counts: Mapping[str, int]) -> Self:
        return self.model_copy(update={"finished": _now(), "counts": dict(sorted(counts.items()))})

    def reopened(self) -> Self:
        return self.model_copy(update={"finished": "", "counts": {}})

    def write_new(self, folder: Path) -> None:
        """On disk, whole or not at all. Raises `FileExistsError` if somebody was faster."""
        draft = self._draft(folder)
        try:
            os.link(draft, folder / MANIFEST)
        finally:
            draft.unlink()

    def replace(self, folder: Path) -> None:
        """On disk, in the place of the one that is there."""
        self._draft(folder).replace(folder / MANIFEST)

    def _draft(self, folder: Path) -> Path:
        draft = folder / f".{MANIFEST}.{os.getpid()}.{threading.get_ident()}"
        with draft.open("w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return draft

    def check_resumable(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Raises `RunStoreError` that names what differs, unless `config` is this run's own."""
        if self.config_digest == config_digest(config):
            return
        keys = {*self.config, *config}
        differing = sorted(key for key in keys if self.config.get(key) != config.get(key))
        raise RunStoreError(
            f"{folder}: expected a run of this configuration, found one that differs in "
            f"{', '.join(differing)}; resume with the same settings or choose another folder"
        )


def read_manifest(folder: Path) -> Manifest:
    """Raises `RunStoreError` if `folder` holds no run of this schema."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RunStoreError(f"{path}: expected schema {SCHEMA_VERSION}, found {version}")
        return Manifest.model_validate(content)
    except FileNotFoundError:
        raise RunStoreError(f"{folder}: expected a run folder, found no {MANIFEST}") from None
    except (OSError, ValueError, AttributeError) as error:
        raise RunStoreError(f"{path}: expected a run manifest: {brief(error)}") from error


def config_digest(config: Mapping[str, Any]) -> str:
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def brief(error: Exception) -> str:
    """Its message in one line, for the message of another error."""
    return " ".join(str(error).split())[:200]


def _versions() -> dict[str, str]:
    versions = {}
    for name in RECORDED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
