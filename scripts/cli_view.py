"""`contextrl view`: a run or a set of pairs as one page that needs no server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contextrl.scripts.console import ScriptError

if TYPE_CHECKING:  # what these import would slow `contextrl view --help` down
    from contextrl.agents.viewer.page import Series

CURVES = {
    "ca/accuracy": "CA accuracy by step",
    "ca/margin": "CA margin by step, nats",
    "critic/rewards/mean": "Mean reward by step",
}
EPISODES = "episodes"


def view(
    path: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Run folder, trajectory file, or pair folder."),
    ],
    html: Annotated[Path, typer.Option(help="Page to write.")],
    probe: Annotated[
        Path | None, typer.Option(help="For pairs: what `contextrl probe --json` printed.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Model folder: gives tokens their text.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page; the folder's name if empty.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page.")] = False,
) -> None:
    """Write a run or a set of pairs as one page to share."""
    from contextrl.agents.viewer.index import TrajectoryIndex
    from contextrl.agents.viewer.page import write_page
    from contextrl.pairs.store import PAIRS
    from contextrl.scripts.pair_views import read_pair_views

    if html.exists() and not overwrite:
        raise ScriptError(f"expected no file at {html}, found one; pass --overwrite")
    if not html.absolute().parent.is_dir():
        raise ScriptError(f"expected a folder {html.absolute().parent} to write to, found none")
    is_pairs = (path / PAIRS).is_file() or path.name == PAIRS
    pairs = read_pair_views(path, probe, limit=limit) if is_pairs else []
    episodes = path / EPISODES if (path / EPISODES).is_dir() else path
    size = write_page(
        html,
        title=title or path.resolve().name,
        index=None if is_pairs else TrajectoryIndex(episodes),
        pairs=pairs,
        series=[] if is_pairs else list(curves(path)),
        decode=decoder(tokenizer) if tokenizer else None,
        limit=limit,
    )
    typer.echo(f"{html}: {size / 1e6:.1f} MB")


def curves(path: Path) -> Iterator[Series]:
    """Those of `CURVES` that a training run around `path` recorded for two steps or more."""
    from contextrl.agents.viewer.page import Series

    file = next(
        (p / "metrics.jsonl" for p in (path, path.parent) if (p / "metrics.jsonl").exists()), None
    )
    found: dict[str, dict[float, float]] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file else ():
        try:
            content = json.loads(line)
            step, metrics = float(content["step"]), content["metrics"]
            for key in CURVES.keys() & metrics.keys():
                found.setdefault(key, {})[step] = float(metrics[key])
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a run that is being written may end in half a line
    for key, name in CURVES.items():
        points = sorted(found.get(key, {}).items())
        if len(points) > 1:
            yield Series(name=name, points=tuple(points))


def decoder(folder: Path) -> Callable[[Sequence[int]], list[str]]:
    """Token ids to texts, by the fast tokenizer of a model folder."""
    file = folder / "tokenizer.json" if folder.is_dir() else folder
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ScriptError(
            "expected the tokenizers package, found none; pip install tokenizers"
        ) from error
    if not file.is_file():
        raise ScriptError(f"expected a tokenizer.json at {file}, found none")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ScriptError(f"{file}: expected a tokenizer: {error}") from error
    known: dict[int, str] = {}

    def decode(ids: Sequence[int]) -> list[str]:
        for each in ids:
            if each not in known:
                known[each] = tokenizer.decode([each], skip_special_tokens=False)
        return [known[each] for each in ids]

    return decode
