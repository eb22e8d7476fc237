"""Necks of the papers' classifiers; the head is mmpretrain's ``LinearClsHead``."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..backbones.options import check_choice


@MODELS.register_module()
class NormAndPool(BaseModule):
    """A LayerNorm of each token, then their mean, or the first of them.

    RegionViT takes the mean of regional tokens, Focal Transformer and ViL that of all tokens. ViL
    may take its global token instead, the first one, with ``outputs='all'`` and one in the last
    stage (``num_global_tokens=1``) in its backbone.

    Args:
        in_channels (int): Channels C.
        eps (float): Of the norm: 1e-6 for RegionViT and ViL, 1e-5 for Focal Transformer. Defaults
            to 1e-6.
        pool (str): 'mean' or 'first'. Defaults to 'mean'.

    Raises:
        ValueError: For another ``pool``.
    """

    def __init__(self, in_channels: int, eps: float = 1e-6, pool: str = 'mean') -> None:
        super().__init__()
        check_choice('pool', pool, ('mean', 'first'))
        self.pool = pool
        self.norm = nn.LayerNorm(in_channels, eps=eps)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Pool the last of some maps; a tuple, as mmpretrain's heads ask.

        Args:
            maps (Sequence[Tensor]): (B, C, H, W), or tokens (B, C, N).

        Returns:
            tuple[Tensor]: (B, C).

        Raises:
            ValueError: If the first of a map's tokens is asked for, which is no global one.
        """
        if self.pool == 'first' and maps[-1].ndim == 4:
            raise ValueError(
                "pool='first' is for ViL's global token: set outputs='all' and num_global_tokens=1 "
                'in the backbone'
            )
        tokens = self.tokens(maps[-1])
        return (tokens.mean(1) if self.pool == 'mean' else tokens[:, 0],)

    def tokens(self, x: Tensor) -> Tensor:
        """What is pooled of a map, (B, C, H, W) or (B, C, N): tokens (B, N, C)."""
        return self.norm(x.flatten(2).transpose(1, 2))


@MODELS.register_module()
class ProjectAndPool(BaseModule):
    """RMT's: a linear layer on each token, batch normalisation, SiLU, then their mean.

    Args:
        in_channels (int): Channels before.
        out_channels (int): Channels after. Defaults to 1024.
    """

    def __init__(self, in_channels: int, out_channels: int = 1024) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels)
        nn.init.trunc_normal_(self.proj.weight, std=0.02)
        nn.init.zeros_(self.proj.bias)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor]:
        """Pool the last of some maps, (B, C, H, W); a tuple of (B, C')."""
        return (self.tokens(maps[-1]).mean(1),)

    def tokens(self, x: Tensor) -> Tensor:
        """What is pooled of a map, (B, C, H, W): tokens (B, N, C')."""
        projected = self.proj(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        return F.silu(self.norm(projected)).transpose(1, 2)
