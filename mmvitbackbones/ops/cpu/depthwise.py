"""Depth-wise convolutions within a kernel: their gradients, and sums with what they convolve."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_gradients(
    grad: Tensor,
    x: Tensor,
    kernel: Tensor,
    wanted: tuple[bool, bool, bool],
    padding: Sequence[int] | None = None,
) -> list[Tensor]:
    """Gradients of a depth-wise convolution's input, kernel and bias.

    Args:
        grad (Tensor): Gradient of its output, (B, C, H, W).
        x (Tensor): Its input.
        kernel (Tensor): (C, 1, h, w).
        wanted (tuple[bool, bool, bool]): Which of the three to compute.
        padding (Sequence[int], optional): Zeros above and below, and on the left and right;
            None: half the kernel.

    Returns:
        list[Tensor]: The gradients that are wanted.
    """
    zeros = [side // 2 for side in kernel.shape[2:]] if padding is None else list(padding)
    channels, ones, none = len(kernel), [1, 1], [0, 0]
    gradients = torch.ops.aten.convolution_backward(
        grad, x, kernel, [channels], ones, zeros, ones, False, none, channels, list(wanted)
    )
    return [found for found, is_wanted in zip(gradients, wanted) if is_wanted]


def adding(kernel: Tensor) -> Tensor:
    """From a depth-wise 3x3 kernel, (C, 1, 3, 3), to one that adds what it is applied to."""
    return kernel + F.pad(kernel.new_ones(1, 1), (1, 1, 1, 1))
