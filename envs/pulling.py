"""Images from a registry: failures named, a busy or broken one asked again, and nothing hidden.

The engine resumes a transfer that was cut off by itself, a few times, and then gives up the whole
pull and all its layers. Some failures it says only in the middle of its stream, with status 200.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from contextrl.envs.engine import engine_boundary
from contextrl.envs.errors import EngineUnavailableError, ImageError, SandboxError

if TYPE_CHECKING:
    from docker import DockerClient

logger = logging.getLogger(__name__)

RATE_DELAYS_S = (15.0, 30.0, 60.0, 120.0, 240.0)
"""Registries count pulls by the hour; the engine does not pass on when to come back."""
BROKEN_DELAYS_S = (1.0, 3.0, 9.0)

_RATE = re.compile(r"toomanyrequests|rate limit|too many requests|\b429\b", re.IGNORECASE)
_BROKEN = re.compile(
    r"\bEOF\b|connection reset|broken pipe|handshake timeout|unexpected (?:http|status)|"
    r"\b50[0234]\b (?:internal|bad|service|gateway)|received unexpected HTTP status: 5|"
    r"internal server error|service unavailable|filesystem layer verification failed",
    re.IGNORECASE,
)


def pull(
    client: DockerClient,
    image: str,
    *,
    rate_delays_s: Sequence[float] = RATE_DELAYS_S,
    broken_delays_s: Sequence[float] = BROKEN_DELAYS_S,
    stop: threading.Event | None = None,
) -> str:
    """The image was fetched from its registry.

    A rate limit is waited out, a transfer that broke off is tried again, each by its own delays; a
    registry that cannot be reached, an unknown image or no permission fails at once. Raises
    `ImageError`, at once when `stop` is set while it waits.
    """
    waits = {_RATE: list(rate_delays_s), _BROKEN: list(broken_delays_s)}
    wait = threading.Event().wait if stop is None else stop.wait
    while True:
        try:
            _pull_once(client, image)
            return image
        except EngineUnavailableError as error:
            raise ImageError(f"could not be pulled ({error})") from error
        except SandboxError as error:
            delays = next((left for sign, left in waits.items() if sign.search(str(error))), [])
            if not delays:
                raise ImageError(f"could not be pulled ({error})") from error
            # Many machines that were refused together must not come back together.
            delay_s = delays.pop(0) * random.uniform(0.75, 1.25)
            logger.warning("%s; next try in %.0f s", error, delay_s)
            if wait(delay_s):
                raise ImageError("was not pulled: the run is being stopped") from error


def _pull_once(client: DockerClient, image: str) -> None:
    name, digest, _ = image.partition("@")
    repository, _, tag = image.rpartition(":") if ":" in name.split("/")[-1] else (image, "", "")
    if digest:
        repository, tag = image, ""
    elif not tag:
        repository, tag = image, "latest"  # without a tag the engine would fetch all of them
    with engine_boundary(f"pulling {image}"):
        events = client.api.pull(repository, tag=tag or None, stream=True, decode=True)
        for event in events:
            if "error" in event:
                reason = " ".join(str(event["error"]).split())[:300]
                raise SandboxError(f"pulling {image}: {reason}")
