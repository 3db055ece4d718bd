"""Images as unpacked roots, made where there is no engine: the steps run in bubblewrap.

As in an engine a step has no network and changes only the files of the image; as root inside it may
change owners and permissions, and has no other capability. Making a base needs root anyway.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from contextrl.envs.base_image import AGENT_UID
from contextrl.envs.bubblewrap import check_bubblewrap, with_proc
from contextrl.envs.builder import BUILD_TIMEOUT_S, PATH, VENV, packed
from contextrl.envs.errors import ImageError
from contextrl.envs.leases import leased_folder, new_folder
from contextrl.envs.unpacked import FILES, RECORD, UnpackedRoot, keep_root, read_root, root_folder

_PREFIX = ".unpacking-"
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID")
_UIDS = {"root": 0, "agent": AGENT_UID}


class RootImages:
    """The roots below a folder, as a place to build in."""

    def __init__(self, roots: Path) -> None:
        self._roots = roots

    def has(self, image: str) -> bool:
        return (root_folder(self._roots, image) / RECORD).is_file()

    def add_base(self, archive: Path, image: str) -> None:
        _check()
        self._roots.mkdir(parents=True, exist_ok=True)
        with leased_folder(_PREFIX, self._roots) as scratch:
            files = scratch / FILES
            files.mkdir()
            _run(["tar", "-xpf", str(archive), "--numeric-owner", "-C", str(files)], "unpacking")
            record = UnpackedRoot(image=image, uid=0, gid=0, environment={"LANG": "C.UTF-8"})
            keep_root(scratch, record, root_folder(self._roots, image))

    @contextlib.contextmanager
    def building(self, image: str) -> Iterator[RootBuild]:
        _check()
        draft = Path(image)
        if draft.is_absolute():  # of `commit`: goes on where it was, with the same inodes
            scratch = draft
        else:
            files, _ = read_root(self._roots, image)
            scratch = new_folder(_PREFIX, self._roots)
            _run(["cp", "-a", "--reflink=auto", str(files), str(scratch / FILES)], "copying")
        build = RootBuild(self._roots, scratch)
        try:
            yield build
        finally:
            if not build.kept:
                shutil.rmtree(scratch, ignore_errors=True)

    def remove(self, image: str) -> None:
        draft = Path(image)
        folder = draft if draft.is_absolute() else root_folder(self._roots, image)
        shutil.rmtree(folder, ignore_errors=True)


class RootBuild:
    """A folder that will become a root."""

    def __init__(self, roots: Path, scratch: Path) -> None:
        self._roots, self._scratch = roots, scratch
        self.kept = False
        """What it holds is an image or a draft."""

    def put_tree(self, source: Path, target: str, *, uid: int) -> None:
        # By tar inside of it: a link in the image cannot lead out.
        with packed(source, target, uid) as stream:
            self._run(["tar", "-xpf", "-", "--numeric-owner", "-C", "/"], "root", stream)

    def run(self, script: str, *, user: str = "root") -> None:
        self._run(["bash", "-euo", "pipefail", "-c", script], user)

    def commit(self, image: str, *, user: str, workdir: str) -> str:
        self.kept = True
        if not image:
            return str(self._scratch)
        uid = _UIDS[user]
        environment = {"LANG": "C.UTF-8", "PATH": PATH, "VIRTUAL_ENV": VENV}
        record = UnpackedRoot(image=image, uid=uid, gid=uid, environment=environment)
        keep_root(self._scratch, record, root_folder(self._roots, image))
        return image

    def _run(self, command: list[str], user: str, stdin: object = subprocess.DEVNULL) -> None:
        inside = ["bwrap", "--die-with-parent", "--new-session", "--clearenv"]
        for name in ("ipc", "pid", "net", "uts"):
            inside.append(f"--unshare-{name}")
        inside += ["--bind", str(self._scratch / FILES), "/", "--dev", "/dev", *with_proc()]
        home = "/root" if user == "root" else f"/home/{user}"
        variables = {"PATH": PATH, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "HOME": home}
        for name, value in variables.items():
            inside += ["--setenv", name, value]
        inside += ["--cap-drop", "ALL"]
        for capability in _CAPABILITIES:
            inside += ["--cap-add", f"CAP_{capability}"]
        if uid := _UIDS[user]:
            inside += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
            inside += ["--inh-caps=-all", "--bounding-set=-all"]
        _run([*inside, *command], "a build step", stdin)


def _run(command: list[str], what: str, stdin: object = subprocess.DEVNULL) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=stdin,  # type: ignore[call-overload]
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{what} ran longer than {BUILD_TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        lines = done.stdout.decode(errors="replace").strip().splitlines() or ["no output"]
        raise ImageError(f"{what} failed with {done.returncode}: {' | '.join(lines[-4:])[:500]}")


def _check() -> None:
    check_bubblewrap()
    if os.geteuid() != 0:
        raise ImageError(
            "making images without an engine needs root; run the same command as root once"
        )
