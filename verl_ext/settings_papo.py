"""Values of `papo:`, the masked-image KL of PAPO (arXiv 2507.06448): a baseline, off by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contextrl.verl_ext.errors import ConfigError
from contextrl.verl_ext.settings import parse_block


@dataclass(frozen=True, slots=True, kw_only=True)
class PAPOConfig:
    """The released GRPO run of Qwen2.5-VL-7B has coef 0.02, both entropies 0.05, mask_ratio 0.6."""

    coef: float = 0.0
    """Weight of the KL, which is maximised. 0 switches all of PAPO off."""
    mask_ratio: float = 0.6
    """Share of an image's patches that are black in the masked one."""
    entropy_coef: float = 0.0
    """Weight of the entropy with the image intact, which is minimised."""
    masked_entropy_coef: float = 0.0
    """The same with the image masked. It has no gradient without `masked_gradient`."""
    masked_gradient: bool = False
    """True differentiates through the masked forward too, at the price of its memory and its
    backward; the release does not by default."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("coef", "entropy_coef", "masked_entropy_coef"):
            value = getattr(self, name)
            if value < 0:
                raise ConfigError(f"papo.{name} must be >= 0, got {value}")
            if value > 0 and not self.active:
                raise ConfigError(f"papo.{name} needs papo.coef > 0, got papo.coef {self.coef}")
        if not 0 < self.mask_ratio <= 1:
            raise ConfigError(
                f"papo.mask_ratio must be above 0 and at most 1, got {self.mask_ratio}"
            )

    @property
    def active(self) -> bool:
        return self.coef > 0

    @classmethod
    def from_mapping(cls, block: Mapping[str, Any] | None) -> PAPOConfig:
        """None, which is what a run stored before there was PAPO has, is off."""
        return parse_block(cls, block or {}, "papo")

    def require_images(self, *, sees: bool) -> None:
        """Raises `ConfigError` where there is no image to mask."""
        if self.active and not sees:
            raise ConfigError(
                f"expected papo.coef 0 in a run on text, got {self.coef:g}: it compares an image "
                "with the image masked; use run_vl_contextrl.sh, or leave papo out"
            )
