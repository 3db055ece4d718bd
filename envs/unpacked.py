"""Image roots as plain folders, for machines without a container engine.

A root is made where an engine is (`unpack`), and can be copied as it is. What an engine would have
read from the image's configuration is in a record beside it.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from contextrl.envs.engine import engine_boundary
from contextrl.envs.errors import ImageError
from contextrl.envs.leases import CACHE, new_folder
from contextrl.envs.one_maker import one_maker
from contextrl.envs.types import Record

if TYPE_CHECKING:
    from docker import DockerClient

DEFAULT_ROOTS = CACHE / "roots"
RECORD = "root.json"
FILES = "files"
INSIDE = "/run/contextrl"
"""Where a sandbox finds what its driver shares with it."""


class UnpackedRoot(Record):
    """`root.json` beside the folder `files`."""

    schema_version: int = 1
    image: str
    uid: int
    """The user that commands run as; the image's own, by number."""
    gid: int
    environment: dict[str, str]


def root_folder(roots: Path, image: str) -> Path:
    return roots / image.replace("/", "__").replace(":", "--")


def unpack(client: DockerClient, image: str, roots: Path, *, name: str = "") -> Path:
    """The image's files are below `roots`, whole or not at all; at once if they were before.

    `name`: what tasks call the image, if not by its own name.
    """
    target = root_folder(roots, name or image)
    if (target / RECORD).is_file():
        return target
    roots.mkdir(parents=True, exist_ok=True)
    with one_maker(str(target.absolute())):
        if not (target / RECORD).is_file():
            _unpack(client, image, name, target)
    return target


def _unpack(client: DockerClient, image: str, name: str, target: Path) -> None:
    scratch = new_folder(".unpacking-", target.parent)
    try:
        with engine_boundary(f"unpacking image {image}"):
            config = client.api.inspect_image(image).get("Config") or {}
            container = client.api.create_container(image, command=["true"])["Id"]
            try:
                _extract(client, container, scratch / FILES)
            finally:
                client.api.remove_container(container, force=True, v=True)
        user = str(config.get("User") or "0")
        uid, gid = _user(scratch / FILES, user.partition(":")[0])
        variables = dict(line.partition("=")[::2] for line in config.get("Env") or ())
        record = UnpackedRoot(image=name or image, uid=uid, gid=gid, environment=variables)
        keep_root(scratch, record, target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def keep_root(scratch: Path, record: UnpackedRoot, target: Path) -> None:
    """The folder `scratch`, which holds the files, is a root from now on.

    Its programs run with the rights of who starts them: in a sandbox nothing else would be granted,
    and on the host a foreign image must not leave a way to become root.
    """
    for place, _, names in os.walk(scratch / FILES):
        for name in names:
            mode = os.lstat(path := os.path.join(place, name)).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(path, stat.S_IMODE(mode) & 0o777)
    run = scratch / FILES / "run"
    if run.is_dir() and not run.is_symlink():  # made once, so that no start has to
        (run / Path(INSIDE).name).mkdir(exist_ok=True)
    (scratch / RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")
    scratch.chmod(0o755)
    os.rename(scratch, target)


def read_root(roots: Path, image: str) -> tuple[Path, UnpackedRoot]:
    """The folder with the image's files. Raises `ImageError` that says how to make it."""
    folder = root_folder(roots, image)
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
        return folder / FILES, UnpackedRoot.model_validate_json(text)
    except FileNotFoundError as error:
        raise ImageError(
            f"expected the unpacked image {image} at {folder}, found none; where an engine runs: "
            f"contextrl tasks unpack --tasks FILE --roots {roots}, then copy that folder"
        ) from error
    except (ValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ImageError(f"{folder / RECORD} is damaged ({reason}); unpack it again") from error


def _extract(client: DockerClient, container: str, folder: Path) -> None:
    folder.mkdir()
    command = ["tar", "-x", "--numeric-owner", "-C", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as tar:
        assert tar.stdin is not None
        assert tar.stderr is not None
        for chunk in client.api.export(container, chunk_size=1 << 20):
            tar.stdin.write(chunk)
        tar.stdin.close()
        said = tar.stderr.read().decode(errors="replace")
    if tar.returncode != 0:
        raise ImageError(f"tar could not unpack the image: {' '.join(said.split())[:200]}")


def _user(files: Path, name: str) -> tuple[int, int]:
    if name.isdigit():
        return int(name), int(name)
    for line in (files / "etc/passwd").read_text(errors="replace").splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2]), int(fields[3])
    raise ImageError(f"the image's user {name!r} is not in its /etc/passwd")
