"""What every verb shares with the terminal: exit codes, one-line errors, logging.

Exit codes: 0 fine, 1 an error of ours (one line on stderr), 2 wrong usage, 130 Ctrl-C.
Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Callable

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

# The root error of each package, by name: an error can only reach us if its package was imported
# already, and importing the others to compare would cost `--help` its half second.
ROOT_ERRORS = frozenset(
    {
        "contextrl.envs.errors.EnvsError",
        "contextrl.agents.errors.AgentsError",
        "contextrl.pairs.errors.PairsError",
        "contextrl.verl_ext.errors.VerlExtError",
        "contextrl.scripts.console.ScriptError",
    }
)
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})


class ScriptError(Exception):
    """Root of the package. Its message is one line: expected, found, what to do."""


def expected_failure(error: BaseException) -> str | None:
    """The one line to show for an error that is nobody's bug; None when it is one."""
    for kind in type(error).__mro__:
        if f"{kind.__module__}.{kind.__qualname__}" in ROOT_ERRORS:
            return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        where = f" for {error.filename}" if error.filename else ""
        return f"expected free disk space{where}, found none; free some and run again"
    return None


def run(verb: Callable[[], object]) -> int:
    """Call `verb` and turn the ways it may end into an exit code."""
    try:
        verb()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        if code == EXIT_INTERRUPTED:
            _complain("interrupted")
        return code
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        line = expected_failure(error)
        if line is None:
            raise
        _complain(line)
        logging.getLogger(__name__).debug("where that came from:", exc_info=error)
        return EXIT_ERROR
    return 0


def log_to_stderr(verbosity: int) -> None:
    """0 shows warnings, 1 progress of this project, 2 everything we log and others' progress."""
    ours, others = {
        0: (logging.WARNING, logging.WARNING),
        1: (logging.INFO, logging.WARNING),
    }.get(verbosity, (logging.DEBUG, logging.INFO))
    logging.basicConfig(
        level=others, stream=sys.stderr, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    logging.getLogger("contextrl").setLevel(ours)


def _complain(line: str) -> None:
    print(f"contextrl: {line}", file=sys.stderr)
