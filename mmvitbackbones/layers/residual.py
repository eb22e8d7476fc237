"""The sum of a block's input and one of its branches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """A residual connection with stochastic depth and LayerScale.

    ``x + keep * scale * y`` in one pass: ``keep`` is 0 for samples whose branch is dropped and
    ``1 / (1 - drop_prob)`` for the others (Huang et al., "Deep Networks with Stochastic Depth"),
    ``scale`` is learned (Touvron et al., "Going deeper with Image Transformers").

    Args:
        drop_prob (float): Probability that the branch is dropped in training. Defaults to 0.
        dims (int, optional): Channels C, where there is a scale.
        scale (float, optional): Initial scale of all channels; None: no scale.
    """

    def __init__(
        self, drop_prob: float = 0.0, dims: int | None = None, scale: float | None = None
    ) -> None:
        super().__init__()
        self.drop_prob = drop_prob
        self.scale = None
        if scale is not None:
            if dims is None:
                raise ValueError('a scale needs dims, its channels')
            self.scale = nn.Parameter(torch.full((dims,), float(scale)))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the branch ``y`` to ``x``; (B, ..., C) in and out."""
        return self.each([x], [y])[0]

    def each(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Add branches of the same samples, which are dropped together.

        Args:
            xs (Sequence[Tensor]): (B, ..., C) each; those past the last branch are left out.
            ys (Sequence[Tensor]): Their branches.

        Returns:
            tuple[Tensor, ...]: As many as branches.
        """
        keep = None
        if self.training and self.drop_prob:
            keep = F.dropout(xs[0].new_ones(xs[0].shape[0]), self.drop_prob)
        return tuple(self._add(x, y, keep) for x, y in zip(xs, ys))

    def _add(self, x: Tensor, y: Tensor, keep: Tensor | None) -> Tensor:
        factor: Tensor | None = self.scale
        if keep is not None:
            keep = keep.view(-1, *[1] * (x.dim() - 1))
            factor = keep if factor is None else keep * factor
        if factor is None:
            return x + y
        # A scale in float32 would make the sum of two maps in a half type float32.
        return torch.addcmul(x, y, factor.to(torch.promote_types(x.dtype, y.dtype)))

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f'drop_prob={self.drop_prob:.3g}, scale={self.scale is not None}'
