"""Depth-wise convolutions within a kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def kernel_gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, padding: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Gradients of a depth-wise convolution's kernel and bias.

    Args:
        grad (Tensor): Gradient of its output, (B, C, H, W).
        x (Tensor): Its input.
        kernel (Tensor): (C, 1, h, w).
        padding (Sequence[int]): Zeros above and below, and on the left and right.

    Returns:
        tuple[Tensor, Tensor]: Of the kernel, and of the bias.
    """
    channels, ones, wanted = len(kernel), [1, 1], [False, True, True]
    _, of_kernel, of_bias = torch.ops.aten.convolution_backward(
        grad, x, kernel, [channels], ones, padding, ones, False, [0, 0], channels, wanted
    )
    return of_kernel, of_bias


def adding(kernel: Tensor) -> Tensor:
    """From a depth-wise 3x3 kernel, (C, 1, 3, 3), to one that adds what it is applied to."""
    return kernel + F.pad(kernel.new_ones(1, 1), (1, 1, 1, 1))
