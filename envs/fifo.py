"""Byte channels to processes of a namespace sandbox, through named pipes in a shared folder.

The folder is mounted read-only inside: what is in it can be opened and not replaced, so the driver
never follows a link that the sandbox made.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path

from contextrl.envs.errors import SandboxError

# The sandbox's first process: a line on its standard input starts a command with three pipes, its
# exit code goes into a fourth. At the end of input it exits, and the kernel ends all the others.
FIRST_PROCESS = r"""
exec >/dev/null 2>&1
while IFS=' ' read -r name command; do
  ( cd /; eval "$command" <"/run/contextrl/$name.in" >"/run/contextrl/$name.out" \
      2>"/run/contextrl/$name.err"; echo $? >"/run/contextrl/$name.code" ) &
done
"""


def one_line(command: list[str]) -> str:
    """The command as bash words without a line break."""
    escapes = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"})
    return " ".join(f"$'{word.translate(escapes)}'" for word in command)


class FifoChannel:
    """stdin, the output and the exit code of one process."""

    def __init__(self, folder: Path, name: str, *, merged: bool) -> None:
        """`merged`: stderr comes with the output, as in a terminal."""
        self._paths = [folder / f"{name}.{end}" for end in ("in", "out", "err", "code")]
        for path in self._paths:
            if path.suffix == ".err" and merged:
                path.symlink_to(f"{name}.out")  # ours: the sandbox cannot write here
            else:
                os.mkfifo(path)
                path.chmod(0o666)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
        self._out = os.open(self._paths[1], flags)
        self._err = -1 if merged else os.open(self._paths[2], flags)
        self._code = os.open(self._paths[3], flags)
        # Read and write: opening blocks for nobody, and the other end may open later.
        self._in = os.open(self._paths[0], os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        self._exit: int | None = None
        self._closed = False

    def send(self, content: bytes) -> None:
        """A process that is gone is no error here: `receive` tells."""
        view = memoryview(content)
        deadline = time.monotonic() + 60.0
        while view and time.monotonic() < deadline:
            _, ready, _ = select.select([], [self._in], [], 1.0)
            if ready:
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(self._in, view) :]
            elif self.exit_code() is not None:
                return

    def receive(self, timeout_s: float) -> bytes | None:
        """None when nothing came in time, empty when nothing will come any more."""
        return self._read(self._out, timeout_s)

    def read_to_end(self, max_bytes: int, *, timeout_s: float) -> tuple[int, bytes, bytes]:
        """Exit code, stdout (cut at one byte over `max_bytes`) and stderr; -1 out of time."""
        streams = {self._out: bytearray(), self._err: bytearray()}
        open_ends = {end for end in streams if end >= 0}
        deadline = time.monotonic() + timeout_s
        while open_ends:
            if time.monotonic() > deadline:
                return -1, bytes(streams[self._out]), b"timed out"
            for end in list(open_ends):
                chunk = self._read(end, 0.05 if len(open_ends) == 1 else 0.002)
                if chunk == b"":
                    open_ends.discard(end)
                elif chunk:
                    streams[end] += chunk[: max_bytes + 1 - len(streams[end])]
        # Its exit code comes right after, unless something killed what would send it.
        code = self.exit_code()
        if code is None and self._read_code(2.0):
            code = self.exit_code()
        return -1 if code is None else code, bytes(streams[self._out]), bytes(streams[self._err])

    @staticmethod
    def _read(end: int, timeout_s: float) -> bytes | None:
        # A pipe that nobody has opened for writing yet is not ready; one that was closed is.
        ready, _, _ = select.select([end], [], [], max(0.0, timeout_s))
        if not ready:
            return None
        try:
            return os.read(end, 256 * 1024)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SandboxError(f"reading from a sandbox: {error}") from error

    def _read_code(self, timeout_s: float) -> bool:
        return bool(select.select([self._code], [], [], timeout_s)[0])

    def exit_code(self) -> int | None:
        """None while the process runs."""
        if self._exit is None:
            with contextlib.suppress(BlockingIOError, ValueError):
                text = os.read(self._code, 64)
                self._exit = int(text) if text.strip() else None
        return self._exit

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for end in (self._in, self._out, self._err, self._code):
            if end >= 0:
                os.close(end)
        for path in self._paths:
            path.unlink(missing_ok=True)
