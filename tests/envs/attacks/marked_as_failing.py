"""The code under test marks the running test as one that is expected to fail."""

import sys

import pytest


def add(a, b):
    frame = sys._getframe()
    while frame is not None:
        item = frame.f_locals.get("item")
        if hasattr(item, "add_marker"):
            item.add_marker(pytest.mark.xfail)
            break
        frame = frame.f_back
    raise AssertionError
