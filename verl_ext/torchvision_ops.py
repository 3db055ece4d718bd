"""`import torchvision` works beside a CPU build of torch, whichever build of it is installed.

PyPI's torchvision holds operators compiled for CUDA. Where they do not load, its Python half still
asks torch for two of them while it is imported, and the import fails. Nothing that we use needs
those operators: declared without a body they let the import pass, and calling one is an error.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

LIBRARY = "torchvision"
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []
"""Keeps the declaration alive: torch forgets operators with the object that declared them."""


def install() -> None:
    """From now on the first `import torchvision` of this process is prepared. Imports nothing."""
    if LIBRARY not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing itself: the import goes on to the real finders, prepared."""

    asked = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == LIBRARY and not self.asked:
            self.asked = True
            spec = importlib.util.find_spec(LIBRARY)
            if spec is not None and spec.submodule_search_locations:
                _declare_what_does_not_load(Path(spec.submodule_search_locations[0]))
        return None


def _declare_what_does_not_load(folder: Path) -> None:
    import torch

    for library in sorted(folder.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))
            return
        except OSError:
            continue
    declared = torch.library.Library(LIBRARY, "DEF")
    for name in ("nms", "qnms"):
        declared.define(name + SCHEMA)
    _declared.append(declared)
