"""Fetching and unpacking: nothing but the pinned bytes, nothing outside the folder."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile

import pytest

from contextrl.envs.errors import MutationError
from contextrl.envs.package_specs import TOOLZ
from contextrl.envs.packages import extract_sdist, fetch_sdist, prepare_tree, tree_digest


def archive(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_a_file_in_the_folder_is_used_if_its_hash_is_right(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"bytes")
    pinned = hashlib.sha256(b"bytes").hexdigest()
    spec = TOOLZ.model_copy(update={"sdist_filename": "x.tar.gz", "sdist_sha256": pinned})
    assert fetch_sdist(spec, tmp_path) == tmp_path / "x.tar.gz"


def test_a_file_with_another_hash_is_refused(tmp_path):
    (tmp_path / TOOLZ.sdist_filename).write_bytes(b"not toolz")
    with pytest.raises(MutationError, match=f"expected sha256 {TOOLZ.sdist_sha256}, found "):
        fetch_sdist(TOOLZ, tmp_path)


def test_members_that_leave_the_folder_are_refused(tmp_path):
    path = archive(tmp_path / "evil.tar.gz", {"p-1/a.py": b"", "../evil.py": b"boom"})
    with pytest.raises(MutationError, match="expected a source archive"):
        extract_sdist(path, tmp_path / "out")
    assert not (tmp_path / "evil.py").exists()


def tree_of(tmp_path, **changes):
    path = archive(
        tmp_path / "p.tar.gz", {"p-1/p/a.py": b"# why\nx = 1\n", "p-1/setup.py": b"boom()"}
    )
    spec = TOOLZ.model_copy(update={"sources": ("p/a.py",), "keep": ("p",), **changes})
    (tmp_path / "scratch").mkdir()
    return prepare_tree(spec, path, tmp_path / "scratch")


def test_the_tree_holds_prepared_sources_and_nothing_that_is_not_kept(tmp_path):
    tree = tree_of(tmp_path)
    assert [path.name for path in tree.rglob("*.py")] == ["a.py"]
    assert (tree / "p" / "a.py").read_text() == "x = 1\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": ("p", "LICENSE")}, "expected LICENSE in the archive, found nothing"),
        ({"sources": ("p/b.py",)}, r"expected the source file p/b\.py, found nothing"),
    ],
)
def test_an_archive_without_a_named_file_is_refused(tmp_path, changes, message):
    with pytest.raises(MutationError, match=message):
        tree_of(tmp_path, **changes)


def test_the_digest_of_a_tree_depends_on_names_and_contents_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("x = 1\n")
    os.utime(tmp_path / "two" / "a.py", (0, 0))
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "two")
    (tmp_path / "two" / "a.py").rename(tmp_path / "two" / "b.py")
    assert tree_digest(tmp_path / "one") != tree_digest(tmp_path / "two")


@pytest.mark.network
def test_toolz_can_be_fetched_from_the_configured_index(tmp_path):
    assert fetch_sdist(TOOLZ, tmp_path).name == "toolz-1.0.0.tar.gz"
    assert [path.name for path in tmp_path.iterdir()] == ["toolz-1.0.0.tar.gz"]
