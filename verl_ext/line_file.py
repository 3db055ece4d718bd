"""Files of one JSON object a line, appended to by a process that may be killed within one."""

from __future__ import annotations

import os
from pathlib import Path


def open_to_append(path: Path) -> int:
    """A descriptor; a line that a kill tore ends here, so that it takes no later one with it.

    Several processes may append to one file, a whole line at each write.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
    return descriptor
