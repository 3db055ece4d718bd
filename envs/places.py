"""Where sandboxes of a job run: a Docker engine, or namespaces on a machine that has none."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from contextrl.envs.bubblewrap import check_bubblewrap
from contextrl.envs.cleanup import Removed, reap_until_quiet
from contextrl.envs.container import SandboxLimits
from contextrl.envs.docker import DockerProvider
from contextrl.envs.engine import connect
from contextrl.envs.errors import EngineUnavailableError, ImageError
from contextrl.envs.image_store import ImageStore
from contextrl.envs.images import ensure_image
from contextrl.envs.namespace import NamespaceProvider
from contextrl.envs.remote import RemoteProvider
from contextrl.envs.rex_deploy import read_deployment
from contextrl.envs.supply import SupplyingProvider
from contextrl.envs.types import SandboxProvider, Task
from contextrl.envs.unpacked import DEFAULT_ROOTS, read_root

logger = logging.getLogger(__name__)

_said = threading.Event()

Provider = SupplyingProvider | NamespaceProvider | RemoteProvider


def open_provider(
    *,
    limits: SandboxLimits | None = None,
    run_id: str = "",
    recycle: bool = False,
    images: Iterable[str] = (),
    image_budget_gb: float | None = None,
    repos: Path | None = None,
    roots: Path = DEFAULT_ROOTS,
    deployment: Path | None = None,
) -> Provider:
    """Docker's sandboxes, whose images come when a task needs them; namespaces without an engine.

    With a `deployment`, a file of `rex_deploy`, they run there, and no engine is asked for.

    The log says once, in one line, that there is no engine. `images` are those that will be asked
    for: without an engine, what `roots` lacks of them is known now. `repos` are local clones that
    absent images are built from. Raises `EngineUnavailableError`
    where there can be neither.
    """
    if deployment is not None:
        return RemoteProvider(read_deployment(deployment), limits=limits)
    try:
        client = connect()
    except EngineUnavailableError as error:
        return _namespaces(error, limits, images, roots.expanduser())
    budget = None if image_budget_gb is None else int(image_budget_gb * 1e9)
    store = ImageStore(client, budget_bytes=budget)
    return SupplyingProvider(
        DockerProvider(client, limits=limits, run_id=run_id, recycle=recycle),
        partial(ensure_image, client, repos=repos, store=store),
        store=store,
    )


def with_local_image(provider: SandboxProvider, task: Task) -> Task:
    """The task under the name of its local image, for a record; itself where it cannot be had."""
    if isinstance(provider, SupplyingProvider):
        with contextlib.suppress(ImageError):
            return provider.with_image(task)
    return task


def without_engine(roots: Path = DEFAULT_ROOTS) -> str:
    """The line that says so, or nothing where an engine answers.

    Raises `EngineUnavailableError` where no namespace can be made either.
    """
    try:
        connect().close()
    except EngineUnavailableError as error:
        try:
            check_bubblewrap()
        except EngineUnavailableError as also:
            raise EngineUnavailableError(f"{error}; namespaces instead: {also}") from also
        return _line(roots.expanduser())
    return ""


def end_run(run_id: str) -> list[Removed]:
    """No sandbox is left of a run whose processes were stopped.

    Without an engine there is none: namespaces end with the process that made them.
    """
    try:
        client = connect()
    except EngineUnavailableError:
        return []
    return reap_until_quiet(client, run=run_id)


def _namespaces(
    no_engine: EngineUnavailableError,
    limits: SandboxLimits | None,
    images: Iterable[str],
    roots: Path,
) -> Provider:
    try:
        # Made before its images are looked for: where there can be no namespace, that is the news.
        provider = NamespaceProvider(roots, limits=limits)
        for image in sorted(set(images)):
            read_root(roots, image)
    except (EngineUnavailableError, ImageError) as error:
        raise EngineUnavailableError(f"{no_engine}; namespaces instead: {error}") from error
    if not _said.is_set():
        _said.set()
        logger.warning("%s", _line(roots))
    return provider


def _line(roots: Path) -> str:
    return f"no Docker engine: sandboxes are namespaces over the images in {roots}"
