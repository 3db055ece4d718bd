"""Which pairs of images a split may not part: those that share a picture, over any chain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from contextrl.pairs.types import ImagePair


def grouped(pairs: Sequence[ImagePair]) -> tuple[ImagePair, ...]:
    """The pairs with `provenance.group` set: pairs of two groups have no image in common."""
    edges = [(pair.positive.image.sha256, pair.negative.image.sha256) for pair in pairs]
    roots = components(edges)
    return tuple(
        pair.model_copy(
            update={"provenance": pair.provenance.model_copy(update={"group": roots[first][:16]})}
        )
        for pair, (first, _) in zip(pairs, edges, strict=True)
    )


def components(edges: Iterable[tuple[str, str]]) -> dict[str, str]:
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
