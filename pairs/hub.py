"""THE way the hub is named, whatever reads it: pairs, tasks, image questions, trajectories.

`hf://owner/name` is a data set, `hf://owner/name@split` another split of it than train, and
`hf://owner/name/PATTERN` the one file of its repository that fits the pattern.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contextrl.agents.formats.files import RowAt
from contextrl.pairs.errors import SourceError

PREFIX = "hf://"
_LIBRARIES = {"datasets", "huggingface_hub", "httpx", "requests"}
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/]+)|/(.+))?")


@dataclass(frozen=True, slots=True)
class HubName:
    repository: str
    split: str
    pattern: str
    """Of a file's path; empty for the whole data set."""

    @classmethod
    def parse(cls, source: str) -> HubName:
        """Raises `SourceError`."""
        found = _NAME.fullmatch(source)
        if found is None:
            raise SourceError(
                f"expected hf://owner/name, hf://owner/name@split or hf://owner/name/PATTERN for "
                f"one file, found {source}"
            )
        return cls(found[1], found[2] or "train", found[3] or "")


def on_hub(source: object) -> bool:
    return str(source).startswith(PREFIX)


def fetched(source: str) -> str:
    """`source`, or for one file of the hub its path on this disk.

    Raises:
        SourceError: none or several files fit, `huggingface_hub` is not installed, or the hub does
            not answer.
    """
    if not on_hub(source) or not HubName.parse(source).pattern:
        return source
    name = HubName.parse(source)
    try:
        import huggingface_hub
    except ImportError as error:
        raise _not_installed("huggingface_hub") from error
    with _answers(source):
        every = huggingface_hub.list_repo_files(name.repository, repo_type="dataset")
    files = fnmatch.filter(every, name.pattern)
    if len(files) != 1:
        raise SourceError(
            f"expected one file like {name.pattern} in the data set {name.repository}, found "
            f"{', '.join(files[:3]) or 'none'}{' and more' if len(files) > 3 else ''}; name one"
        )
    with _answers(source):
        return str(huggingface_hub.hf_hub_download(name.repository, files[0], repo_type="dataset"))


def settled(source: str) -> str:
    """What every process of a run finds `source` under, wherever it works: see `fetched`; paths
    are absolute, a data set keeps its name. Raises `SourceError`."""
    source = fetched(source)
    return source if on_hub(source) else str(Path(source).absolute())


def hub_table(source: str) -> Any:
    """A whole data set as a `datasets.Dataset`, kept in the cache of `datasets`.

    Raises:
        SourceError: `datasets` is not installed, or the hub does not give the set.
    """
    with _answers(source):
        return _loaded(source)


def hub_rows(source: str, wanted: Collection[int] | None = None) -> Iterator[RowAt]:
    """Rows of a data set in its order, streamed: nothing but the row in hand is on this machine.

    Raises:
        SourceError: `datasets` is not installed, or the hub does not give the set.
    """
    where = Path(source.removeprefix(PREFIX))
    left = set(wanted) if wanted is not None else None
    with _answers(source):
        for number, row in enumerate(_loaded(source, streaming=True)):
            if left is None or number in left:
                yield RowAt(where, number, dict(row))
                if left is not None:
                    left.discard(number)
                    if not left:
                        return


def _loaded(source: str, **options: Any) -> Any:
    name = HubName.parse(source)
    try:
        import datasets
    except ImportError as error:
        raise _not_installed("datasets") from error
    return datasets.load_dataset(name.repository, split=name.split, **options)


@contextmanager
def _answers(source: str) -> Iterator[None]:
    """What the hub's libraries raise becomes one line."""
    try:
        yield
    except Exception as error:
        # They share no root: besides these two there are classes of `datasets`, and of the HTTP
        # library of `huggingface_hub`, which is another one in each of its major versions.
        packages = {each.__module__.partition(".")[0] for each in type(error).__mro__}
        if not (isinstance(error, OSError | ValueError) or packages & _LIBRARIES):
            raise
        said = str(error).strip().partition("\n")[0]
        raise SourceError(f"{source}: the hub does not give it: {said}") from error


def _not_installed(package: str) -> SourceError:
    return SourceError(
        f"expected the package `{package}` to read the hub, found none; "
        "run: pip install 'contextrl[mine]'"
    )
