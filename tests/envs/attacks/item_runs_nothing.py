"""One test item has a runtest of its own: it fails once, for the canary, then does nothing."""

import sys
import threading
import time

frame = sys._getframe()
while frame is not None:
    session = frame.f_locals.get("session")
    if hasattr(session, "perform_collect"):
        break
    frame = frame.f_back


def patch():
    while not getattr(session, "items", None):
        time.sleep(0.0001)
    for item in session.items:
        calls = []

        def runtest(calls=calls):
            calls.append(1)
            assert len(calls) > 1

        item.runtest = runtest


threading.Thread(target=patch, daemon=True).start()
