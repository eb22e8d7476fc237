"""The feed-forward network: ``fc2(h)`` of ``h = GELU(fc1(x))``, or of ``h + conv(h)``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from . import cpu
from .backend import why_plain
from .layout import as_image


def feed_forward(
    x: Tensor, fc1: nn.Linear, fc2: nn.Linear, drop: nn.Dropout, conv: nn.Conv2d | None = None
) -> Tensor:
    """Transform each token.

    A kernel takes the weights of the layers where they are torch's own ones, unchanged.

    Args:
        x (Tensor): Tokens, (..., C); with a convolution a map (B, H, W, C).
        fc1 (nn.Linear): From C to the hidden channels.
        fc2 (nn.Linear): Back to C.
        drop (nn.Dropout): After each linear.
        conv (nn.Conv2d, optional): A depth-wise 3x3 convolution of the hidden channels.

    Returns:
        Tensor: As ``x``.
    """
    if why_plain(x, fc1, fc2, drop, conv, weights=True) is None:
        return cpu.feed_forward_in_strips(x, fc1, fc2, conv)
    hidden = drop(F.gelu(fc1(x)))
    if conv is not None:
        hidden = hidden + as_image(conv, hidden)
    return drop(fc2(hidden))
