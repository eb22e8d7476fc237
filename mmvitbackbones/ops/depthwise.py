"""Depth-wise convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu
from .backend import why_plain


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each channel of an image with a kernel of its own, keeping the size.

    Args:
        x (Tensor): (B, C, H, W).
        kernel (Tensor): (C, 1, k, k), k odd.
        bias (Tensor, optional): (C,).

    Returns:
        Tensor: (B, C, H, W).
    """
    # Torch is slow only at the gradients of kernels wider than 3.
    wide = kernel.shape[-1] > 3
    if wide and torch.is_grad_enabled() and why_plain(x, weights=True) is None:
        return cpu.wide_depthwise(x, kernel, bias)
    return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])
