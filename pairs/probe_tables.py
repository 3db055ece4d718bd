"""A probe's results by domain and length, its margins as a histogram, and the published figures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from contextrl.envs.types import Record
from contextrl.pairs.intervals import Share, wilson
from contextrl.pairs.probe import ProbeReport
from contextrl.pairs.types import ImagePair, ImageProvenance, Pair

LENGTH_EDGES = (8_000, 32_000, 128_000)
"""Characters of both trajectories together, or pixels of both images."""
HISTOGRAM_EDGES = (-5.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 5.0)

# arXiv 2606.17053: agentic selection accuracy on 200 pairs; the second block read off its Figure 5.
PUBLISHED = {
    "GPT-5.4": 0.990,
    "Claude Opus 4.7": 0.980,
    "Qwen3-8B": 0.580,
    "Qwen3.5-9B": 0.525,
    "Qwen3-8B after GRPO": 0.565,
    "Qwen3-8B after ContextRL": 0.880,
    "Klear-AgentForge-8B": 0.505,
    "Klear-AgentForge-8B after ContextRL": 0.855,
}
# The same for its 200 pairs of images.
PUBLISHED_IMAGES = {
    "GPT-5.4": 0.840,
    "Claude Opus 4.7": 0.830,
    "Qwen3-VL-8B": 0.595,
    "Qwen3.5-9B": 0.575,
    "Qwen2.5-VL-7B": 0.570,
    "Qwen2.5-VL-7B after GRPO": 0.580,
    "Qwen2.5-VL-7B after ContextRL": 0.895,
    "Qwen3-VL-8B after GRPO": 0.570,
    "Qwen3-VL-8B after ContextRL": 0.850,
}


class GroupResult(Record):
    name: str
    accuracy: Share


class ProbeTables(Record):
    """What `contextrl probe` prints beside the report."""

    by_domain: tuple[GroupResult, ...]
    """Repositories, or the images' source."""
    by_length: tuple[GroupResult, ...]
    histogram: dict[str, int]
    """Prompts by margin, nats."""
    kind: str
    """Of the published accuracies: `agentic` or `multimodal`."""
    published: dict[str, float]


def tables(report: ProbeReport, pairs: Mapping[str, Pair], *, of_images: bool) -> ProbeTables:
    """Groups are empty for released files, which do not say where a prompt came from."""
    return ProbeTables(
        by_domain=_grouped(report, pairs, _domain),
        by_length=_grouped(report, pairs, _length),
        histogram=histogram([each.margin for each in report.prompts]),
        kind="multimodal" if of_images else "agentic",
        published=PUBLISHED_IMAGES if of_images else PUBLISHED,
    )


def histogram(margins: Sequence[float]) -> dict[str, int]:
    edges = (-math.inf, *HISTOGRAM_EDGES, math.inf)
    found = Counter(sum(margin >= edge for edge in HISTOGRAM_EDGES) for margin in margins)
    return {f"[{edges[at]:g}, {edges[at + 1]:g})": found.get(at, 0) for at in range(len(edges) - 1)}


def _grouped(
    report: ProbeReport, pairs: Mapping[str, Pair], name_of: Callable[[Pair], str]
) -> tuple[GroupResult, ...]:
    credits: defaultdict[str, list[float]] = defaultdict(list)
    for each in report.prompts:
        if each.pair_id in pairs:
            credits[each.pair_id].append(each.credit)
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for pair_id, values in credits.items():
        groups[name_of(pairs[pair_id])].append(sum(values) / len(values))
    return tuple(
        GroupResult(name=name, accuracy=wilson(values)) for name, values in sorted(groups.items())
    )


def _domain(pair: Pair) -> str:
    where = pair.provenance
    return where.source if isinstance(where, ImageProvenance) else where.repo


def _length(pair: Pair) -> str:
    if isinstance(pair, ImagePair):
        size = sum(c.image.width * c.image.height for c in (pair.positive, pair.negative))
        unit = "pixels"
    else:
        size = sum(len(m.content) for c in (pair.positive, pair.negative) for m in c.messages)
        unit = "characters"
    for edge in LENGTH_EDGES:
        if size < edge:
            return f"below {edge:7,} {unit}"
    return f"{LENGTH_EDGES[-1]:7,} {unit} or more"
