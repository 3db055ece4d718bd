"""The code under test skips."""

import unittest


def add(a, b):
    raise unittest.SkipTest("not here")
