"""Rotations of pairs of channels, as products of complex numbers: one pass over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registration import Context, gradient, operator


def rotate_as_complex(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Compute as :func:`mmvitbackbones.ops.rotary.rotate`."""
    return _forward(x, cos, sin)


def _empty(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    samples, height, width, _, heads, dims = x.shape
    shape = (samples, height, width, heads, dims)
    return x.new_empty(shape), x.new_empty(shape)


@operator('rotate(Tensor x, Tensor cos, Tensor sin) -> (Tensor, Tensor)', _empty)
def _forward(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    rotation = torch.complex(cos, sin)
    turned = [_as_complex(part.to(cos.dtype)) * rotation for part in x.unbind(3)]
    q, k = (torch.view_as_real(part).flatten(-2).to(x.dtype) for part in turned)
    return q, k


def _empty_gradient(of_q: Tensor, of_k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    samples, height, width, heads, dims = of_q.shape
    return of_q.new_empty(samples, height, width, 2, heads, dims)


@operator(
    'rotate_backward(Tensor of_q, Tensor of_k, Tensor cos, Tensor sin) -> Tensor', _empty_gradient
)
def _backward(of_q: Tensor, of_k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the gradients back."""
    rotation = torch.complex(cos, -sin)
    out = _empty_gradient(of_q.to(cos.dtype), of_k, cos, sin)
    for part, grad in zip(out.unbind(3), (of_q, of_k)):
        torch.mul(_as_complex(grad.to(cos.dtype)), rotation, out=_as_complex(part))
    return out.to(of_q.dtype)


def _keep(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, cos, sin = inputs
    ctx.save_for_backward(cos, sin)


def _gradients(ctx: Context, of_q: Tensor, of_k: Tensor) -> tuple[Tensor, None, None]:
    return _backward(of_q, of_k, *ctx.saved_tensors), None, None


gradient(_forward, _keep, _gradients, by=_backward)


def _as_complex(x: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    *others, last = pairs.stride()
    if last != 1 or any(stride % 2 for stride in (*others, x.storage_offset())):
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    return torch.view_as_complex(pairs)
