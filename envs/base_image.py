"""The image below all that we build: a minimal Debian, made from the host's own package sources."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

from contextrl.envs.builder import FIXED_TIME, content_tag
from contextrl.envs.errors import ImageError
from contextrl.envs.image_place import ImagePlace
from contextrl.envs.leases import leased_folder
from contextrl.envs.one_maker import one_maker

logger = logging.getLogger(__name__)

BASE_VERSION = 2
"""Part of the digest: raise it when the steps below change."""
BASE_NAME = "contextrl-base"
SUITE = "bookworm"
BASE_PACKAGES = ("python3", "python3-venv", "git", "patch", "procps", "less", "ca-certificates")
AGENT_UID = 1000


def base_image() -> str:
    """The name that `ensure_base` gives, whether it exists yet or not."""
    return content_tag(BASE_NAME, BASE_VERSION, ["base", SUITE, BASE_PACKAGES])


def ensure_base(place: ImagePlace) -> str:
    """A minimal Debian with Python, git and a user `agent` (uid 1000) exists; its name."""
    image = base_image()
    if place.has(image):
        return image
    if shutil.which("mmdebstrap") is None:
        raise ImageError(
            "expected mmdebstrap to make the base image, found none; "
            "run: apt-get install mmdebstrap"
        )
    if os.geteuid() != 0:
        raise ImageError("making the base image needs root; run the same command as root once")
    with one_maker(image):
        if not place.has(image):
            _make_base(place, image)
    return image


def _make_base(place: ImagePlace, image: str) -> None:
    logger.info("making the base image %s (about a minute)", image)
    with leased_folder("contextrl-base-") as scratch:
        archive = scratch / "base.tar"
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(BASE_PACKAGES)}",
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            f'--customize-hook=chroot "$1" useradd -m -u {AGENT_UID} -s /bin/bash agent',
            SUITE,
            str(archive),
            *_host_sources(),
        ]
        # Of the same packages mmdebstrap then makes the same files.
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(FIXED_TIME)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            reason = " ".join(done.stderr.split())[-300:]
            raise ImageError(f"mmdebstrap failed, check the network and apt's sources: {reason}")
        place.add_base(archive, image)


def _host_sources() -> list[str]:
    """The host's apt sources for the suite, as mmdebstrap takes them; none: its default mirror."""
    places = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    found = []
    for place in places:
        if place.suffix not in {".list", ".sources"} or not place.is_file():
            continue
        text = place.read_text(encoding="utf-8", errors="replace")
        words = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        # The suite as a word: `cloud-sdk-bookworm` of a third party is another archive.
        if any(SUITE in line.split() for line in words):
            found.append(str(place))
    return found
