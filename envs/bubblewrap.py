"""The command line that makes a namespace sandbox, and whether this machine can run it."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from contextrl.envs.container import SandboxLimits
from contextrl.envs.control_groups import ControlGroup
from contextrl.envs.errors import EngineUnavailableError
from contextrl.envs.shell import SHELL_ENVIRONMENT
from contextrl.envs.unpacked import INSIDE, UnpackedRoot

PROGRAMS = ("bwrap", "unshare", "setpriv", "prlimit", "mount")
KERNEL_SWITCHES = ("acpi", "bus", "fs", "irq", "scsi", "sys", "sysrq-trigger")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check_bubblewrap() -> None:
    """Raises `EngineUnavailableError` unless a namespace can be made here, by making one."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise EngineUnavailableError(
            f"expected {', '.join(missing)} on PATH for sandboxes without Docker, found none; "
            "run: apt-get install bubblewrap util-linux"
        )
    probe = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineUnavailableError(
            "expected unprivileged user namespaces, found them switched off "
            f"({' '.join(done.stderr.split())[:150]}); as root: "
            "sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
        )


def with_proc() -> list[str]:
    """bubblewrap's options for a `/proc` whose switches of the kernel cannot be written.

    Its own covers leave out `sys`, whose files the host's root may write without any capability,
    be it called so inside of a user namespace or not.
    """
    covered = [
        path for name in KERNEL_SWITCHES if (path := f"/proc/{name}") and os.path.exists(path)
    ]
    return ["--proc", "/proc", *(word for path in covered for word in ("--ro-bind", path, path))]


def command_line(
    layers: Sequence[Path],
    root: UnpackedRoot,
    limits: SandboxLimits,
    *,
    mounts: Path,
    control: Path,
    first_process: str,
    group: ControlGroup | None = None,
) -> list[str]:
    """Overlay in a mount namespace of its own, then bubblewrap on it.

    Of `layers` the first is the uppermost, and the last is the image's files.
    As root the overlay is mounted by root and everything after runs as the image's user. Otherwise
    all happens in a user namespace, where the invoking user owns the image's files. With a `group`
    the number of processes is that one's to limit; otherwise it is counted for each user.
    """
    is_root = os.geteuid() == 0
    uid, gid = root.uid, root.gid
    variables = {"PATH": PATH, **root.environment, **SHELL_ENVIRONMENT, "HOME": "/tmp"}
    bwrap = [
        "bwrap",
        "--unshare-all",
        "--unshare-user",
        "--as-pid-1",
        "--hostname",
        "sandbox",
        "--clearenv",
    ]
    if uid:
        bwrap += ["--uid", str(uid), "--gid", str(gid)]
    bwrap += ["--bind", f"{mounts}/m", "/", "--dev", "/dev", *with_proc()]
    bwrap += ["--ro-bind", str(control), INSIDE, "--tmpfs", f"{INSIDE}/mounts", "--cap-drop", "ALL"]
    for name, value in variables.items():
        bwrap += ["--setenv", name, value]
    bwrap += ["bash", "--noprofile", "--norc", "-c", first_process]
    user = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"] if is_root else []
    enter = "\n".join(f"echo $$ > {shlex.quote(door)}" for door in (group.doors if group else ()))
    lower = ":".join(map(str, layers))
    script = f"""
set -e
umask 022
{enter}
mount -t tmpfs -o size={limits.disk_mb}m,mode=755 contextrl {mounts}
mkdir {mounts}/u {mounts}/w {mounts}/m
{_like(layers[-1], f"{mounts}/u")}
mount -t overlay -o lowerdir={lower},upperdir={mounts}/u,workdir={mounts}/w{_options(is_root)} \\
  contextrl {mounts}/m
[ -d {mounts}/m{INSIDE} ] || mkdir -p {mounts}/m{INSIDE}
exec {shlex.join([*user, *bwrap])}
"""
    memory = limits.memory_mb << 20
    return [
        "prlimit",
        f"--as={memory}",
        *([] if group else [f"--nproc={limits.pids}"]),
        f"--nofile={limits.open_files}",
        f"--fsize={limits.disk_mb << 20}",
        "--core=0",
        "unshare",
        *([] if is_root else ["--user", "--map-root-user"]),
        "--mount",
        "--propagation=private",
        "sh",
        "-c",
        script,
    ]


def _like(files: Path, upper: str) -> str:
    """A command that gives `upper` the mode and owner of `files`, where it has others."""
    status = files.stat()
    ours = (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    if ours and stat.S_IMODE(status.st_mode) == 0o755:
        return ":"
    return f"chmod --reference={files} {upper} && chown --reference={files} {upper}"


def _options(is_root: bool) -> str:
    return "" if is_root else ",userxattr"
