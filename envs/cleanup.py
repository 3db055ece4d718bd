"""Containers and half-made images whose owner is gone: no process is trusted to have cleaned up."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contextrl.envs.engine import engine_boundary
from contextrl.envs.errors import SandboxError

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

LABEL_RUN = "contextrl.run"
LABEL_HOST = "contextrl.host"
LABEL_PID = "contextrl.pid"
LABEL_DEADLINE = "contextrl.deadline"
LABEL_DRAFT = "contextrl.draft"
"""Of images that are a step of a build: without a name, they serve nobody once it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """One container that was removed, and why."""

    container: str
    image: str
    run: str
    reason: str


def labels(run_id: str, *, lease_s: float) -> dict[str, str]:
    """What every container of ours carries: its run, its owner and how long it may stay."""
    return {
        LABEL_RUN: run_id,
        LABEL_HOST: socket.gethostname(),
        LABEL_PID: owner_label(os.getpid()),
        LABEL_DEADLINE: str(int(time.time() + lease_s)),
    }


def run_label(run_dir: Path) -> str:
    """The run of a run folder: its name, and a digest of its place, for names repeat elsewhere."""
    place = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:8]
    return f"{run_dir.name}-{place}"


def draft_label() -> str:
    return f"{socket.gethostname()}/{owner_label(os.getpid())}"


def owner_label(pid: int) -> str:
    """`pid:birth`, where birth tells a process from a later one with the same number."""
    return f"{pid}:{_birth(pid)}"


def owner_alive(label: str) -> bool:
    """Whether the process of an `owner_label` of this host still runs."""
    pid, _, birth = label.partition(":")
    if not pid.isdigit() or not Path(f"/proc/{pid}").exists():
        return False
    return not birth or _birth(int(pid)) == birth


def reap(
    client: DockerClient, *, run: str | None = None, everything: bool = False
) -> list[Removed]:
    """No container is left whose owner on this host died or whose deadline passed.

    `run`: all containers of that run, whoever owns them. `everything`: all of ours, live ones too.
    """
    from docker.errors import APIError, NotFound

    removed = []
    filters = {"label": [f"{LABEL_RUN}={run}" if run else LABEL_RUN]}
    with engine_boundary("listing containers"):
        found = client.api.containers(all=True, filters=filters)
    for container in found:
        found_labels = container.get("Labels") or {}
        reason = "asked for" if everything or run else _stale(found_labels)
        if reason is None:
            continue
        try:
            with engine_boundary(f"removing container {container['Id'][:12]}"):
                client.api.remove_container(container["Id"], force=True, v=True)
        except SandboxError as error:
            if not isinstance(error.__cause__, NotFound):
                is_conflict = isinstance(error.__cause__, APIError)
                logger.log(logging.INFO if is_conflict else logging.WARNING, "%s", error)
            continue
        removed.append(
            Removed(
                container=container["Id"][:12],
                image=str(container.get("Image", "")),
                run=found_labels.get(LABEL_RUN, ""),
                reason=reason,
            )
        )
    return removed


def reap_drafts(client: DockerClient) -> list[str]:
    """No nameless image of a build is left whose process on this host is gone; their ids."""
    removed = []
    with engine_boundary("listing images"):
        found = client.api.images(filters={"dangling": True, "label": [LABEL_DRAFT]})
    for image in found:
        host, _, owner = (image.get("Labels") or {}).get(LABEL_DRAFT, "").partition("/")
        if host == socket.gethostname() and not owner_alive(owner):
            with contextlib.suppress(SandboxError), engine_boundary("removing a draft image"):
                client.api.remove_image(image["Id"])
                removed.append(str(image["Id"]))
    return removed


def reap_until_quiet(
    client: DockerClient, *, run: str, quiet_s: float = 3.0, patience_s: float = 60.0
) -> list[Removed]:
    """As `reap` of a run that was just stopped, until none came for `quiet_s`.

    Its processes may still be ending, and the engine still makes the containers that they asked for
    last: one look would miss those.
    """
    removed: list[Removed] = []
    last_seen = began = time.monotonic()
    while time.monotonic() - last_seen < quiet_s and time.monotonic() - began < patience_s:
        found = reap(client, run=run)
        if found:
            removed += found
            last_seen = time.monotonic()
        time.sleep(0.25)
    return removed


def remove_container(client: DockerClient, container_id: str) -> bool:
    """Whether the container of this id or name is gone, or going; if not, the log says why."""
    from docker.errors import APIError, NotFound

    try:
        with engine_boundary(f"removing sandbox {container_id[:12]}"):
            try:
                client.api.remove_container(container_id, force=True, v=True)
            except NotFound:
                pass
            except APIError as error:
                if error.status_code != 409:  # 409: its removal is already under way
                    raise
    except SandboxError as error:
        logger.warning("%s; `contextrl clean` removes it later", error)
        return False
    return True


def _stale(found: dict[str, str]) -> str | None:
    deadline = found.get(LABEL_DEADLINE, "")
    if deadline.isdigit() and time.time() > int(deadline):
        return "its deadline passed"
    here = found.get(LABEL_HOST) == socket.gethostname()
    if here and not owner_alive(found.get(LABEL_PID, "")):
        return f"its owner, process {found.get(LABEL_PID, '?').partition(':')[0]}, is gone"
    return None


def _birth(pid: int) -> str:
    """Start time in clock ticks since boot; empty where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
