"""The part of an agent's diff that answers its issue, and whether the diff is its own at all."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from contextrl.agents.types import Message
from contextrl.pairs.diffs import parse

# Files that the images of public sets change before the agent starts, so that they are in its diff.
_SETUP_FILES = frozenset(
    {"setup.py", "setup.cfg", "tox.ini", "pyproject.toml", "conftest.py", "pytest.ini"}
)
_TEST = re.compile(r"(?:^|/)(?:tests?|testing)/|(?:^|/)(?:test_[^/]*|[^/]*_test|tests)\.py$")


def source_part(patch: str) -> str:
    """The files of `patch` that were there before, without tests and set-up; "" if none is left.

    Agents submit their reproduction scripts and tests as well. Those are evidence of what they
    saw, so they must neither be the answer nor be masked.

    Raises:
        PatchError: the patch does not parse.
    """
    kept = [
        str(file)
        for file in parse(patch)
        if not file.is_added_file and not _TEST.search(file.path) and not is_setup(file.path)
    ]
    return "".join(kept)


def is_setup(path: str) -> bool:
    return "/" not in path and PurePosixPath(path).name in _SETUP_FILES


def mentions(files: Iterable[str], messages: Iterable[Message]) -> bool:
    """One of the files, by its last two path components, stands in the text of the run.

    Exports of public sets have joined runs with the patches of other repositories: such a run
    never names a file of its patch.
    """
    ends = sorted({re.escape("/".join(PurePosixPath(file).parts[-2:])) for file in files})
    named = re.compile(rf"(?<![\w.-])(?:{'|'.join(ends)})")
    return any(named.search(message.content) for message in messages)
