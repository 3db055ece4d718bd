"""Wheelhouses: folders of wheels that install without an index, made on the host by its own pip."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from contextrl.envs.errors import ImageError
from contextrl.envs.leases import new_folder

TARGET_PYTHON = (3, 11)
"""Of Debian bookworm, which the base image is."""
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64")

DEFAULT_CACHE = Path("~/.cache/contextrl/wheelhouse")


def wheelhouse(
    requirements: Sequence[str], *, uploaded_before: str = "", cache: Path = DEFAULT_CACHE
) -> Path:
    """A folder that holds a wheel for every requirement and all they need. Made once, then reused.

    The host's pip configuration holds: its index, certificates and links. Source distributions are
    built on the host where it has the target's Python, and refused elsewhere. `uploaded_before`, a
    date, holds for indexes that tell when a file was uploaded, as PyPI does; mirrors may not.
    """
    key = json.dumps([sorted(requirements), TARGET_PYTHON, *filter(None, [uploaded_before])])
    folder = cache.expanduser() / hashlib.sha256(key.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = new_folder(".partial-", folder.parent)
    try:
        command = [sys.executable, "-m", "pip", *_fetch_arguments(scratch)]
        if uploaded_before:
            command.append(f"--uploaded-prior-to={uploaded_before}")
        command += requirements
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
        if done.returncode != 0:
            if "no such option: --uploaded-prior-to" in done.stderr:
                raise ImageError(
                    "expected pip 26 or newer for wheels of a past date, found an older one; run: "
                    f"{sys.executable} -m pip install --upgrade pip"
                )
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = (errors or done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise ImageError(
                f"pip could not fetch wheels for {len(requirements)} requirements: {reason[:300]}; "
                "check the network and pip's configuration (pip config list)"
            )
        try:
            scratch.rename(folder)
        except OSError:  # another process was first, with the same content
            if not folder.is_dir():
                raise
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"could not download wheels into {folder.parent}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _fetch_arguments(folder: Path) -> list[str]:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    if sys.version_info[:2] == TARGET_PYTHON and sys.platform == "linux":
        return ["wheel", *quiet, "--wheel-dir", str(folder)]
    version = ".".join(map(str, TARGET_PYTHON))
    target = ["--only-binary=:all:", "--python-version", version, "--implementation", "cp"]
    for platform in PLATFORMS:
        target += ["--platform", platform]
    return ["download", *quiet, *target, "--dest", str(folder)]
