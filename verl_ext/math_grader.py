"""`math-verify` behind a process that can be killed: its input is a model's output.

`10**10**10`, a tower of roots or an integral can keep a computer algebra system busy for ever, and
the library's own time limits need the main thread. A child that computes too long is ended, the
two expressions count as different, and the next question starts another child. What counts is the
child's own computing time: on a machine that trains, a right answer must not turn wrong.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import subprocess
import sys
import threading

PATIENCE_S = 3
"""Of computing, for one question."""
WALL_S = 120.0
"""Waiting for a child that neither answers nor computes; its imports on a busy machine, too."""
MEMORY_BYTES = 2 << 30
READY = "ready"
NEAR = 2e-6
"""Relative. The library rounds to six decimals, whatever the size: 1e-7 would be 2e-7."""


class TooLongError(Exception):
    """No verdict: the child was ended. Whoever compares a list need not ask for its other items."""


class MathGrader:
    """Asks one child at a time; safe to share between threads."""

    def __init__(self, patience_s: int = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def equal(self, given: str, expected: str) -> bool:
        """Raises `TooLongError` when the child took too long or broke."""
        with self._lock:
            child = self._child or self._start()
            if child is None or child.stdin is None:
                raise TooLongError("the child does not start")
            with contextlib.suppress(OSError, ValueError):
                child.stdin.write(json.dumps([given, expected]) + "\n")
                child.stdin.flush()
                answer = _line(child)
                if answer:
                    return answer == "true"
            self._end()
            raise TooLongError(f"more than {self._patience_s} s of computing")

    def close(self) -> None:
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[str] | None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._patience_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if _line(self._child) != READY:
            self._end()
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def equal_expressions(given: str, expected: str) -> bool:
    """Whether both are the same mathematics. `TooLongError` after `PATIENCE_S`."""
    return _grader.equal(given, expected)


def _line(child: subprocess.Popen[str]) -> str:
    """One line of the child, or "" when it is gone or stuck."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], WALL_S)
    return child.stdout.readline().strip() if ready else ""


_grader = MathGrader()
atexit.register(_grader.close)


def _near(left: object, right: object) -> bool:
    """Whether two formulas have one value, to `NEAR` of it, for some value of their letters."""
    from sympy import Eq, Expr, N, Rational

    left, right = (side.rhs if isinstance(side, Eq) else side for side in (left, right))
    if not (isinstance(left, Expr) and isinstance(right, Expr)):
        return True
    letters = sorted(left.free_symbols | right.free_symbols, key=str)
    values = {letter: Rational(13 + 7 * n, 11 + n) for n, letter in enumerate(letters)}
    one, other = (complex(N(side.subs(values).doit())) for side in (left, right))
    return abs(one - other) <= NEAR * max(abs(one), abs(other))


def _serve(patience_s: int) -> None:
    """The child: pairs of expressions as JSON lines in, `true` or `false` out.

    The system ends it when one of them takes more than `patience_s` of its computing time.
    """
    import logging
    import resource

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    verify(parse("$1$", parsing_timeout=None), parse("$1$", parsing_timeout=None))  # loads the rest
    print(READY, flush=True)
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + 1 + patience_s
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        given, expected = json.loads(line)
        try:
            left, right = (parse(f"${text}$", parsing_timeout=None) for text in (given, expected))
            same = bool(left and right) and verify(right, left, timeout_seconds=None)
            same = same and _near(left[0], right[0])
        except Exception:  # whatever a parser of hostile text throws, the answer is no
            same = False
        print("true" if same else "false", flush=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
