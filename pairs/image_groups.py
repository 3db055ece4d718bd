"""Which pairs of images a split may not part: those that share a picture, over any chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contextrl.pairs.types import ImagePair


def grouped(
    pairs: Sequence[ImagePair], same: Mapping[str, str] | None = None
) -> tuple[ImagePair, ...]:
    """The pairs with `provenance.group` set: pairs of two groups have no picture in common.

    `same` maps the digest of a file to one name for all files that show its picture.
    """
    names = same or {}
    edges = [
        tuple(names.get(side.image.sha256, side.image.sha256) for side in (p.positive, p.negative))
        for p in pairs
    ]
    roots = _roots(edges)
    return tuple(
        pair.model_copy(
            update={"provenance": pair.provenance.model_copy(update={"group": roots[first][:16]})}
        )
        for pair, (first, _) in zip(pairs, edges, strict=True)
    )


def _roots(edges: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """Of the graph with these edges: node -> the least node of its component."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in edges:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return {node: root(node) for node in parent}
