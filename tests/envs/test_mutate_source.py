"""Prepared source: what policies read, and what line-oriented tools may rely on."""

from __future__ import annotations

import ast
import re

import pytest

from contextrl.envs.errors import MutationError
from contextrl.envs.source_prep import prepare_source

SOURCE = '''"""Module."""
import os
# a comment
def one(x):
    """Says one.

    >>> one(1)
    """

    # why
    y = 'a'  # trailing

    return x, y
def two():
    \'\'\'Only a docstring.\'\'\'
TEXT = """
# not a comment

'kept'
"""


class Three:

    def method(self):

        return "it's"

    other = 'say "hi"'
'''


def test_docstrings_comment_lines_and_blank_lines_inside_functions_go():
    assert (
        prepare_source(SOURCE, name="m.py")
        == '''import os

def one(x):
    y = "a"  # trailing
    return x, y

def two():
    pass

TEXT = """
# not a comment

'kept'
"""

class Three:

    def method(self):
        return "it's"

    other = 'say "hi"'
'''
    )


def test_every_top_level_function_is_one_block_of_lines():
    prepared = prepare_source(SOURCE, name="m.py")
    blocks = re.split(r"\n\n", prepared)
    for node in ast.parse(prepared).body:
        if isinstance(node, ast.FunctionDef):
            segment = ast.get_source_segment(prepared, node)
            assert any(block.endswith(segment) for block in blocks)


def test_preparing_twice_changes_nothing_more():
    once = prepare_source(SOURCE, name="m.py")
    assert prepare_source(once, name="m.py") == once


def test_f_strings_keep_their_quotes():
    source = "def f(d):\n    return f\"{d['a']}\" + f'{d}'\n"
    assert prepare_source(source, name="m.py") == source


def test_what_is_no_python_is_named():
    with pytest.raises(MutationError, match=r"^m\.py: expected Python source"):
        prepare_source("def f(:\n", name="m.py")
