"""`math-verify` behind a process that can be killed: its input is a model's output.

`10**10**10`, a tower of roots or an integral can keep a computer algebra system busy for ever, and
the library's own time limits need the main thread. A child that takes too long is ended, the two
expressions count as different, and the next question starts another child.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import subprocess
import sys
import threading

PATIENCE_S = 3.0
START_S = 60.0
"""The child's imports, on a busy machine."""
MEMORY_BYTES = 2 << 30
READY = "ready"


class MathGrader:
    """Asks one child at a time; safe to share between threads."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def equal(self, given: str, expected: str) -> bool:
        with self._lock:
            child = self._child or self._start()
            if child is None or child.stdin is None:
                return False
            with contextlib.suppress(OSError, ValueError):
                child.stdin.write(json.dumps([given, expected]) + "\n")
                child.stdin.flush()
                answer = _line(child, self._patience_s)
                if answer:
                    return answer == "true"
            self._end()
            return False

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[str] | None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if _line(self._child, START_S) != READY:
            self._end()
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def equal_expressions(given: str, expected: str) -> bool:
    """Whether both are the same mathematics; False when that takes longer than `PATIENCE_S`."""
    return _grader.equal(given, expected)


def _line(child: subprocess.Popen[str], patience_s: float) -> str:
    """One line of the child, or "" when it took too long or is gone."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], patience_s)
    return child.stdout.readline().strip() if ready else ""


_grader = MathGrader()
atexit.register(_grader.close)


def _serve() -> None:
    """The child: pairs of expressions as JSON lines in, `true` or `false` out."""
    import logging
    import resource

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print(READY, flush=True)
    for line in sys.stdin:
        given, expected = json.loads(line)
        try:
            left, right = (parse(f"${text}$", parsing_timeout=None) for text in (given, expected))
            same = bool(left and right) and verify(right, left, timeout_seconds=None)
        except Exception:  # whatever a parser of hostile text throws, the answer is no
            same = False
        print("true" if same else "false", flush=True)


if __name__ == "__main__":
    _serve()
