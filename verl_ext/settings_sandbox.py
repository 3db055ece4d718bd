"""The configuration block `job.sandbox`: where episodes run, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from contextrl.envs.unpacked import DEFAULT_ROOTS


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """Limits of one sandbox and how many run at once, per agent-loop worker."""

    concurrency: int = 16
    gradings: int | None = None
    """How many of those may be running tests; null for all. Twice the processors is a good value
    where sandboxes share a small machine."""
    memory_mb: int = 2048
    cpus: float = 1.0
    pids: int = 256
    recycle: bool = False
    """Use containers again once they are proven equal to fresh ones, see `envs.recycle`."""
    image_budget_gb: float | None = None
    """Disk for the task images that we pull or build, the least recently used go first; null for
    no limit. Give it room for twice as many images as sandboxes run at once."""
    deployment: str = ""
    """TOML file of a swe-rex deployment on which sandboxes run; empty for this machine."""
    roots: str = ""
    """Folder of unpacked images for a machine without a Docker engine; empty for the cache's."""
    repos: str = ""
    """Folder of local clones that absent task images are built from; empty for none."""

    @property
    def repos_folder(self) -> Path | None:
        return Path(self.repos) if self.repos else None

    @property
    def roots_folder(self) -> Path:
        return Path(self.roots) if self.roots else DEFAULT_ROOTS
