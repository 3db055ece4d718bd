"""What a test file says before anything of the repository runs."""

from __future__ import annotations

import importlib.util

import pytest

from contextrl.envs.referee_source import written_tests

SOURCE = """\
import pytest
from helpers import wrapped, Base
from unittest import TestCase


def test_plain():
    assert len("1")


@pytest.mark.parametrize("a", [1, 2])
def test_marked(a):
    assert a


@wrapped
def test_wrapped():
    assert len("1")


def test_bound_anew():
    assert len("1")


test_bound_anew = wrapped(test_bound_anew)


class TestParent:
    def test_inherited(self):
        assert len("1")

    class TestInner:
        def test_deep(self):
            assert len("1")


class TestChild(TestParent):
    def test_own(self):
        assert len("1")


class TestForeign(Base):
    def test_unsure(self):
        assert len("1")


class TestOld(TestCase):
    def test_case(self):
        assert len("1")


@wrapped
class TestDecorated:
    def test_unsure(self):
        assert len("1")


if True:

    def test_inside():
        assert len("1")
"""
CERTAIN = {
    "test_plain",
    "test_marked",
    "test_inside",
    "TestParent::test_inherited",
    "TestParent::TestInner::test_deep",
    "TestChild::test_inherited",
    "TestChild::test_own",
    "TestOld::test_case",
}


@pytest.fixture
def written(tmp_path):
    (tmp_path / "test_it.py").write_text(SOURCE)
    return lambda plain: written_tests(["test_it.py"], str(tmp_path), plain)


@pytest.mark.parametrize("plain", [True, False])
def test_only_what_nothing_can_wrap_is_certain(written, plain):
    found = written(plain)
    assert set(found) == {f"test_it.py::{name}" for name in CERTAIN}
    assert all(found.values())


def test_what_python_imports_is_equal_to_it_and_compiled_already(written, tmp_path):
    found = written(True)
    path = tmp_path / "test_it.py"
    assert (tmp_path / "__pycache__").is_dir()
    code = importlib.util.spec_from_file_location("it", path).loader.get_code("it")
    plain = next(one for one in code.co_consts if getattr(one, "co_name", "") == "test_plain")
    assert plain in found["test_it.py::test_plain"]
    path.write_text(SOURCE.replace('len("1")', 'len("2")'))
    assert written(True)["test_it.py::test_plain"] != found["test_it.py::test_plain"]


def test_a_file_that_cannot_be_read_is_left_to_pytest(tmp_path):
    (tmp_path / "test_bad.py").write_text("def (:\n")
    assert written_tests(["test_bad.py", "test_none.py"], str(tmp_path), True) == {}
