"""A persistent bash behind a byte channel: state survives, time limits hold, the shell lives on.

Every command travels as one line of script and answers with an end marker that carries a fresh
random nonce, so nothing a command prints can be taken for its end. What happens when

- a command passes its limit: its processes are killed, not the shell's and not those that earlier
  commands left in the background; if the shell itself is what loops, it is replaced;
- a command says `exit`, or dies under `set -e`: the shell is replaced in place, its working
  directory and exported variables kept;
- a command replaces (`exec`) or kills the shell: the next command finds a new one in the same
  working directory. A replaced shell is always said so at the end of the output.

Commands read from /dev/null, or what they are given, which the shell itself never sees. Output of
a background process belongs to whichever command is being read when it arrives. The nonce guards
against accidents and printed text: a command that digs its own shell's memory for it deceives only
itself, as grading happens in another container.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from contextrl.envs.errors import SandboxError
from contextrl.envs.output import HeadTail, overlap
from contextrl.envs.shell_line import command_line
from contextrl.envs.types import ExecResult, Limit

IDLE_POLL_S = 0.5
"""A background process can hold the channel open after its shell died, so we ask now and then."""
KILL_GRACE_S = 0.5
FILE_TOO_LARGE = 153  # 128 + SIGXFSZ
LIMIT_SIGNS = re.compile(
    r"Killed|MemoryError|allocate memory|temporarily unavailable|new thread|space left"
)
"""What programs print when they run into a limit: too much is found and then not confirmed."""
OPEN_TIMEOUT_S = 60.0
MAX_MARKER_BYTES = 64 * 1024

SHELL_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PAGER": "cat",
    "MANPAGER": "cat",
    "GIT_PAGER": "cat",
    "TERM": "dumb",
    "PIP_PROGRESS_BAR": "off",
    "TQDM_DISABLE": "1",
    # The repository may belong to another user of the image, and commits need an author.
    "GIT_CONFIG_COUNT": "3",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "user.name",
    "GIT_CONFIG_VALUE_1": "agent",
    "GIT_CONFIG_KEY_2": "user.email",
    "GIT_CONFIG_VALUE_2": "agent@localhost",
}


class Channel(Protocol):
    """Bytes to and from one bash process."""

    def send(self, content: bytes) -> None: ...

    def receive(self, timeout_s: float) -> bytes | None:
        """None when nothing came in time, empty when nothing will come any more."""
        ...

    def exit_code(self) -> int | None:
        """None while the process runs; -1 when it ended and nobody knows how."""
        ...

    def close(self) -> None: ...


class ShellHost(Protocol):
    """Where shells live: a container, or a temporary folder."""

    def open_shell(self) -> Channel: ...

    def kill(self, *, shell_pid: int, last_pid: int, signal: str) -> None:
        """Run `KILL_SCRIPT`. Raises `SandboxError` when no process can be started for it."""
        ...

    def revive(self) -> None:
        """Every process is dead, files are kept, and a shell can be opened again."""
        ...

    def limit_reached(self) -> Limit | None:
        """Since the last call, by any process of the sandbox. Asked only after a sign of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """What an end marker says."""

    how: str
    exit_code: int
    last_pid: int
    shell_pid: int
    quoted_cwd: str


class PersistentShell:
    """One conversation with bash. Not thread-safe: a sandbox has one owner."""

    def __init__(self, host: ShellHost, *, setup: str, workdir: str, max_output_bytes: int) -> None:
        self._host = host
        self._setup = setup
        self._quoted_cwd = shlex.quote(workdir)
        self._max_output_bytes = max_output_bytes
        self._channel: Channel | None = None
        self._shell_pid = 0
        self._last_pid = 0
        self._needs_setup = True
        self._started_before = False
        self._died: int | None = None
        self.on_output: Callable[[bytes], None] | None = None  # hears it while it is printed

    def run(self, command: str, *, timeout_s: float, stdin: bytes = b"") -> ExecResult:
        """The command has ended or was killed, and the shell is ready for the next one.

        With `stdin` it runs in a subshell: its variables and its directory end with it.
        """
        started = time.monotonic()
        if "\0" in command:
            return ExecResult(
                output="bash: a command cannot hold a NUL byte\n", exit_code=2, seconds=0.0
            )
        output = HeadTail(self._max_output_bytes, self.on_output)
        if self._channel is not None and (pending := self._channel.receive(0.0)) is not None:
            output.add(pending)
            if not pending:  # killed since the last command, by a process in the background
                self.close()
        self._ready()
        nonce, line = command_line(command, len(stdin))
        deadline = time.monotonic() + timeout_s
        self._send(line + stdin)
        end = self._read_until(nonce, output, deadline)
        timed_out = end is None and self._channel is not None
        if timed_out:
            end = self._stop(nonce, output)
            if stdin:  # what of it nobody read would be taken for commands
                self.close()
        exit_code, note = self._settle(end, timed_out)
        text = output.text()
        limit = Limit.TIME if timed_out else Limit.DISK if exit_code == FILE_TOO_LARGE else None
        if exit_code in {None, 137} or LIMIT_SIGNS.search(text[-4096:]):
            limit = self._host.limit_reached() or limit
        if note:
            text += ("" if not text or text.endswith("\n") else "\n") + note + "\n"
        return ExecResult(
            output=text,
            exit_code=None if timed_out else exit_code,
            seconds=time.monotonic() - started,
            timed_out=timed_out,
            dropped_bytes=output.dropped,
            limit=limit,
        )

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def detach(self) -> Channel | None:
        """The open shell as a bare channel again, for another to use; None if there is none."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.send(b"exec >&201 200<&- 201>&-\n")
        return channel

    def _ready(self) -> None:
        """A shell is open, set up, and in the working directory of the last one."""
        if self._channel is None:
            self._channel = self._host.open_shell()
            self._send(b"exec 200<&0 201>&1 >/dev/null 2>&1\n")
            self._needs_setup = True
        if self._needs_setup:
            # The working directory may be gone, and that is no failure of the infrastructure.
            cd = f"cd -- {self._quoted_cwd} 2>/dev/null || cd /; unset OLDPWD"
            nonce, line = command_line(
                f"{self._setup}\nCONTEXTRL_SETUP=$?; {cd}; (exit $CONTEXTRL_SETUP)"
            )
            self._send(line)
            output = HeadTail(4096)
            end = self._read_until(nonce, output, time.monotonic() + OPEN_TIMEOUT_S)
            # Only the first time: later, a setup that fails is something the agent broke.
            failed = end is not None and end.exit_code != 0 and not self._started_before
            if end is None or failed:
                self.close()
                reason = " ".join(output.text().split()) or f"no answer in {OPEN_TIMEOUT_S:g} s"
                raise SandboxError(f"the sandbox's shell did not start: {reason}")
            self._note(end)
            self._needs_setup, self._started_before = end.how != "ok", True

    def _send(self, content: bytes) -> None:
        assert self._channel is not None
        self._channel.send(content)

    def _read_until(self, nonce: bytes, output: HeadTail, deadline: float) -> _End | None:
        """The end marker; None when the deadline passed or the shell died (then it is closed)."""
        assert self._channel is not None
        carry = b""
        while True:
            left = deadline - time.monotonic()
            chunk = self._channel.receive(max(0.0, min(left, IDLE_POLL_S)))
            if chunk == b"" or (chunk is None and self._channel.exit_code() is not None):
                output.add(carry)
                self._died = self._channel.exit_code()
                self.close()
                return None
            if chunk:
                carry += chunk
                at = carry.find(nonce)
                if at >= 0:
                    output.add(carry[:at])
                    return self._read_marker(carry[at + len(nonce) :])
                keep = overlap(carry, nonce)
                output.add(carry[: len(carry) - keep])
                carry = carry[len(carry) - keep :]
            if time.monotonic() >= deadline:
                output.add(carry)
                return None

    def _read_marker(self, rest: bytes) -> _End:
        assert self._channel is not None
        deadline = time.monotonic() + 10.0
        while b"\n" not in rest and len(rest) < MAX_MARKER_BYTES:
            chunk = self._channel.receive(1.0)
            if chunk == b"" or time.monotonic() > deadline:
                raise SandboxError("the sandbox's shell broke off inside an end marker")
            rest += chunk or b""
        how, exit_code, last_pid, shell_pid, cwd = (
            rest.split(b"\n", 1)[0].decode("utf-8", "surrogateescape").strip().split(" ", 4)
        )
        return _End(
            how=how,
            exit_code=int(exit_code),
            last_pid=int(last_pid or 0),
            shell_pid=int(shell_pid),
            quoted_cwd=cwd,
        )

    def _stop(self, nonce: bytes, output: HeadTail) -> _End | None:
        """The command is dead: killed alone, else its shell replaced, else all processes killed."""
        try:
            for signal in ("", "USR1"):
                self._host.kill(shell_pid=self._shell_pid, last_pid=self._last_pid, signal=signal)
                if self._channel is None:
                    return None
                end = self._read_until(nonce, output, time.monotonic() + KILL_GRACE_S)
                if end is not None or self._channel is None:
                    return end
            self._host.kill(shell_pid=self._shell_pid, last_pid=self._last_pid, signal="KILL")
        except SandboxError:
            self._host.revive()
        self._died = 137
        self.close()
        return None

    def _settle(self, end: _End | None, timed_out: bool) -> tuple[int | None, str]:
        """Remember the state the command left; the exit code and what to say about the shell."""
        if end is None:
            died = self._died
            return (
                died if died is not None and 0 <= died < 128 else None,
                "[the shell ended; a new one keeps the working directory, not the variables]",
            )
        self._note(end)
        if end.how == "ok":
            return end.exit_code, ""
        self._needs_setup = True
        return end.exit_code, (
            "[the shell ended; a new one keeps the working directory and exported variables]"
        )

    def _note(self, end: _End) -> None:
        self._shell_pid, self._last_pid = end.shell_pid, end.last_pid
        self._quoted_cwd = end.quoted_cwd
