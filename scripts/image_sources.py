"""Where image questions are read from, and by which name each source is counted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from contextrl.pairs.hub import PREFIX, on_hub
from contextrl.pairs.row_scan import Sources
from contextrl.pairs.vqa import VQARow
from contextrl.pairs.vqa_folder import FolderRows, JoinedRows
from contextrl.scripts.console import ScriptError

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def open_rows(sources: Sequence[str]) -> Sources:
    """Each source by its name; the shards of one set share theirs.

    Raises `PairFileError`, `SourceError`, or `ScriptError` for a source that is named twice.
    """
    if len({_place(source) for source in sources}) != len(sources):
        raise ScriptError("expected each source once, found one twice; name it once")
    return list(zip(source_names(sources), map(_rows, sources), strict=True))


def source_names(sources: Sequence[str]) -> list[str]:
    """The last part of each path, with as many folders before it as tell two sources apart."""
    places = [_place(source) for source in sources]
    for n_parts in count(1):
        names = ["/".join((*at.parts[-n_parts:-1], _stem(at.name))) for at in places]
        folders: defaultdict[str, set[Path]] = defaultdict(set)
        for name, at in zip(names, places, strict=True):
            folders[name].add(at.parent)
        # Files of one folder that share a name are shards of one set.
        if all(len(each) == 1 for each in folders.values()):
            return names
    raise AssertionError("whole paths differ")


def rows_folder(source: str) -> Path | None:
    """The folder whose files are the rows of `source`; None where one file holds everything."""
    path = Path(source)
    if path.is_dir():
        return path.resolve()
    return path.resolve().parent if source.endswith(".jsonl") else None


def _rows(source: str) -> Sequence[VQARow]:
    from contextrl.verl_ext.vqa_rows import VQARows

    path = Path(source)
    if path.is_dir():
        shards = sorted(path.glob("*.parquet"))
        if shards and not any(path.glob("*.jsonl")):
            return JoinedRows([VQARows.open(shard) for shard in shards])
    if path.is_dir() or (source.endswith(".jsonl") and not on_hub(source)):
        return FolderRows(path)
    return VQARows.open(source)


def _place(source: str) -> Path:
    return Path(source.removeprefix(PREFIX)) if on_hub(source) else Path(source).resolve()


def _stem(name: str) -> str:
    """Of a file's name, without the number of its shard."""
    return _SHARD.sub("", name.removesuffix(".parquet").removesuffix(".jsonl"))
