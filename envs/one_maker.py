"""One maker at a time, over all processes: what takes a minute to make is made once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator

from contextrl.envs.leases import CACHE


@contextlib.contextmanager
def one_maker(what: str) -> Iterator[None]:
    """No other process or thread of this user is in a block for the same `what` meanwhile.

    Whoever waited must look again whether there is still something to make. A killed holder's lock
    is free at once: the kernel gives it back.
    """
    folder = CACHE.expanduser() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / hashlib.sha256(what.encode()).hexdigest()[:24]).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
