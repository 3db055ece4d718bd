"""A trainer ends when the job that started it is gone, even if that was killed without a word."""

from __future__ import annotations

import os
import signal
import threading
import time


def end_with_parent(poll_s: float = 1.0) -> None:
    """From now on this process's whole group gets SIGTERM once its parent has died.

    For a process that leads its own group: Ray's daemons are in it, and Ray's workers end when
    those are gone. Containers are found by their labels, see `contextrl clean`.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(poll_s)
        os.killpg(os.getpgid(0), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
