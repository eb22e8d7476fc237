"""Depth-wise convolutions: gradients of their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .registration import Context, gradient, operator


def wide_depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve as :func:`mmvitbackbones.ops.depthwise.depthwise`, with a kernel wider than 3.

    Torch takes several times as long for the gradient of such a kernel as for those of its columns.
    """
    return _forward(x, kernel, bias)


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])


_forward = operator('wide_depthwise(Tensor x, Tensor kernel, Tensor? bias) -> Tensor', _convolve)(
    _convolve
)


def _empty_gradients(grad: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    (grad_x,) = depthwise_gradients(grad, x, kernel, (True, False, False))
    return grad_x, kernel.new_empty(kernel.shape)


@operator(
    'wide_depthwise_backward(Tensor grad, Tensor x, Tensor kernel) -> (Tensor, Tensor)',
    _empty_gradients,
)
def _backward(grad: Tensor, x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the map and of the kernel."""
    (grad_x,) = depthwise_gradients(grad, x, kernel, (True, False, False))
    middle = kernel.shape[-1] // 2
    width, columns = x.shape[3], []
    for shift in range(-middle, middle + 1):
        if abs(shift) <= 1:
            continue
        column = torch.zeros_like(kernel[..., :1])
        if abs(shift) < width:
            # Where a pixel meets the one that lies ``shift`` to its right.
            there = slice(max(shift, 0), width + min(shift, 0))
            here = slice(max(-shift, 0), width + min(-shift, 0))
            (column,) = depthwise_gradients(
                grad[..., here], x[..., there], kernel[..., :1], (False, True, False)
            )
        columns.append(column)
    (centre,) = depthwise_gradients(grad, x, kernel[..., :3], (False, True, False))
    columns.insert(middle - 1, centre)
    return grad_x, torch.cat(columns, dim=3)


def _keep(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, kernel, _ = inputs
    ctx.save_for_backward(x, kernel)


def _gradients(ctx: Context, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, kernel = ctx.saved_tensors
    of_x, of_kernel, of_bias = ctx.needs_input_grad
    grad_x: Tensor | None = None
    grad_kernel: Tensor | None = None
    if of_kernel:
        grad_x, grad_kernel = _backward(grad, x, kernel)
    elif of_x:
        (grad_x,) = depthwise_gradients(grad, x, kernel, (True, False, False))
    return grad_x, grad_kernel, grad.sum((0, 2, 3)) if of_bias else None


gradient(_forward, _keep, _gradients, by=_backward)


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
