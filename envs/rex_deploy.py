"""swe-rex's own deployments by configuration: a machine for each sandbox, started by its library.

A TOML file holds the fields of one of swe-rex's deployment configurations, and `type`:

    type = "modal"             # docker, modal, fargate, daytona; remote is a server that runs
    startup_timeout = 300
    modal_sandbox_kwargs = { block_network = true }

`image` is the task's unless the file names one; `$NAME` in a text is a variable of the environment,
so that tokens need not stand in the file. After the start only the server's HTTP interface is used
(`remote`): the library's client is not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from contextrl.envs.errors import EngineUnavailableError
from contextrl.envs.remote import Deploy
from contextrl.envs.remote_channel import RexServer
from contextrl.envs.types import Task

logger = logging.getLogger(__name__)

WAIT_S = 60.0
"""For a server whose deployment says that it runs."""
_CONFIGS = {
    "docker": "DockerDeploymentConfig",
    "modal": "ModalDeploymentConfig",
    "fargate": "FargateDeploymentConfig",
    "daytona": "DaytonaDeploymentConfig",
    "remote": "RemoteDeploymentConfig",
}
"""swe-rex's `local` and `dummy` have no server, and so no place that is not this process."""


def read_deployment(path: Path) -> Deploy:
    """What starts a machine for a task. Raises `EngineUnavailableError` in one line."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise EngineUnavailableError(
            f"{path}: expected a TOML file with a swe-rex deployment, {said}"
        ) from error
    kind = fields.pop("type", None)
    if kind not in _CONFIGS:
        raise EngineUnavailableError(
            f"{path}: expected type = one of {', '.join(_CONFIGS)}, found {kind!r}"
        )
    config_of = _config_class(kind)
    build = _builder(path, config_of, _expanded(fields, path))
    build("any")  # a field that is wrong is known before the first sandbox

    fresh = threading.Semaphore(1)

    def deploy(task: Task) -> RexServer:
        if kind != "remote":
            return _started(build(task.image).get_deployment(), ours=True)
        # It is somebody else's to end, and what a sandbox did there stays.
        if not fresh.acquire(blocking=False):
            raise EngineUnavailableError(
                f"{path}: expected a fresh machine, found the server that had a sandbox already; "
                "type = remote is for one (--limit 1 --no-grade), the other types start their own"
            )
        return _started(build(task.image).get_deployment(), ours=False)

    return deploy


def _config_class(kind: str) -> type[Any]:
    try:
        from swerex.deployment import config
    except ImportError as error:
        raise EngineUnavailableError(
            "expected the package swe-rex to start a deployment, found none; run: "
            "pip install 'contextrl[remote]'"
        ) from error
    found: type[BaseModel] = getattr(config, _CONFIGS[kind])
    return found


def _builder(path: Path, config_of: type[Any], fields: Mapping[str, Any]) -> Callable[[str], Any]:
    def build(image: str) -> Any:
        given = {"image": image} if "image" in config_of.model_fields else {}
        unknown = sorted(set(fields) - set(config_of.model_fields))
        if unknown:
            raise EngineUnavailableError(
                f"{path}: expected fields of {config_of.__name__} "
                f"({', '.join(config_of.model_fields)}), found {', '.join(unknown)}"
            )
        try:
            return config_of(**{**given, **fields})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise EngineUnavailableError(f"{path}: {where}: {first['msg']}") from error

    return build


def _started(deployment: Any, *, ours: bool) -> RexServer:
    """Its server, answering. What was started is stopped again if it does not."""

    def stop() -> None:
        try:
            if ours:
                asyncio.run(deployment.stop())
        except Exception as error:  # the episode is over, and its result holds
            said = " ".join(str(error).split())[:300] or type(error).__name__
            logger.warning("a swe-rex deployment could not be stopped, end it by hand: %s", said)

    try:
        asyncio.run(deployment.start())
    except Exception as error:  # whatever a cloud's library raises
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise EngineUnavailableError(
            f"expected the swe-rex deployment to start, found: {said}"
        ) from error
    # The library has no public way to ask for the address of what it started.
    runtime = deployment.runtime._config
    url = runtime.host if runtime.port is None else f"{runtime.host}:{runtime.port}"
    server = RexServer(url, runtime.auth_token, stop=stop)
    try:
        server.wait(WAIT_S)
    except BaseException:
        server.close()
        raise
    return server


def _expanded(value: Any, path: Path) -> Any:
    """`$NAME` in texts, however deep. Raises `EngineUnavailableError` for one that is not set."""
    if isinstance(value, Mapping):
        return {key: _expanded(each, path) for key, each in value.items()}
    if isinstance(value, list):
        return [_expanded(each, path) for each in value]
    if not isinstance(value, str):
        return value
    text = os.path.expandvars(value)
    if "$" in text and text == value:
        raise EngineUnavailableError(
            f"{path}: expected {value} in the environment, found no such variable"
        )
    return text
