"""A feed-forward network, a few rows of tokens at a time.

The hidden values, four times as many as the input's, are the largest tensors of a transformer
block. Here those after the GELU stay in the cache, and in narrow networks so do those before it;
the backward pass computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registration import Context, gradient, operator
from .depthwise import adding, kernel_gradients

# Tokens at a time: their hidden values stay in the cache. With a convolution more, as its calls
# cost more.
_BLOCK = 1024
_BLOCK_WITH_CONV = 4096
# Up to this width the hidden values are computed again in the backward pass: there are many of
# them, each is cheap, and fresh memory for them costs about as much time.
_NARROW = 128


def feed_forward_in_strips(
    x: Tensor, fc1: nn.Linear, fc2: nn.Linear, conv: nn.Conv2d | None
) -> Tensor:
    """Compute as :func:`mmvitbackbones.ops.feed_forward.feed_forward`, without dropout."""
    # Without a convolution, all tokens are a map one token wide.
    grid = x.flatten(0, -2)[None, :, None] if conv is None else x
    kernel, kernel_bias = (None, None) if conv is None else (conv.weight, conv.bias)
    weights = (fc1.weight, fc1.bias, fc2.weight, fc2.bias, kernel, kernel_bias)
    trained = any(t is not None and t.requires_grad for t in (x, *weights))
    keep = torch.is_grad_enabled() and trained and x.shape[-1] > _NARROW
    return _forward(grid.contiguous(), *weights, keep)[0].view_as(x)


def _empty(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    kernel: Tensor | None,
    kernel_bias: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    kept = x.new_empty(*x.shape[:3], weight1.shape[0]) if keep else x.new_empty(0)
    return x.new_empty(x.shape), kept


@operator(
    'feed_forward(Tensor x, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2, '
    'Tensor? kernel, Tensor? kernel_bias, bool keep) -> (Tensor, Tensor)',
    _empty,
)
def _forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    kernel: Tensor | None,
    kernel_bias: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """The tokens (B, H, W, C), and for the backward pass the hidden values before the GELU."""
    out, kept = _empty(x, weight1, bias1, weight2, bias2, kernel, kernel_bias, keep)
    strips = _Strips(x, len(weight1), margin=0 if kernel is None else 1)
    widened = None if kernel is None else adding(kernel)
    for rows, new in strips:
        before = kept[new] if keep else strips.new('before')
        _linear(x[new], weight1, bias1, before)
        torch.ops.aten.gelu.out(before, out=strips.new('hidden'))
        hidden = _convolve(strips.all('hidden'), widened, kernel_bias)
        _linear(hidden, weight2, bias2, out[rows])
    return out, kept


def _empty_gradients(
    grad: Tensor,
    kept: Tensor,
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    kernel: Tensor | None,
    kernel_bias: Tensor | None,
    of_weights: bool,
) -> list[Tensor]:
    parameters = (weight1, bias1, weight2, kernel, kernel_bias) if of_weights else ()
    return [x.new_empty(x.shape), *(p.new_empty(p.shape) for p in parameters if p is not None)]


@operator(
    'feed_forward_backward(Tensor grad, Tensor kept, Tensor x, Tensor weight1, Tensor bias1, '
    'Tensor weight2, Tensor? kernel, Tensor? kernel_bias, bool of_weights) -> Tensor[]',
    _empty_gradients,
)
def _backward(
    grad: Tensor,
    kept: Tensor,
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    kernel: Tensor | None,
    kernel_bias: Tensor | None,
    of_weights: bool,
) -> list[Tensor]:
    """Gradients of the tokens, and if wanted of all parameters but the last bias."""
    grad_x = x.new_empty(x.shape)
    parameters = (weight1, bias1, weight2, kernel, kernel_bias) if of_weights else ()
    wanted = [p for p in parameters if p is not None]
    # In float32 at least, as they are summed over the strips.
    dtype = torch.promote_types(x.dtype, torch.float32)
    sums = [torch.zeros(p.shape, dtype=dtype, device=p.device) for p in wanted]
    grad = grad.contiguous()
    widened = None if kernel is None else adding(kernel)
    # The gradient of a convolution is one with the kernel turned round.
    turned = None if widened is None else widened.flip(2, 3)
    strips = _Strips(x, len(weight1), margin=0 if kernel is None else 1)
    for rows, new in strips:
        if not kept.numel():
            _linear(x[new], weight1, bias1, strips.new('before'))
        before = kept[new] if kept.numel() else strips.new('before')
        _linear(grad[new], weight2.t(), None, strips.new('grad'))
        if of_weights:
            torch.ops.aten.gelu.out(before, out=strips.new('hidden'))
            hidden = _convolve(strips.all('hidden'), widened, kernel_bias)
            _add_product(sums[2], grad[rows], hidden)
            if kernel is not None:
                # A strip has its margins above and below instead of padding.
                of_kernel, of_bias = kernel_gradients(
                    _image(strips.middle('grad')),
                    _image(strips.all('hidden')),
                    kernel,
                    padding=[0, 1],
                )
                sums[3] += of_kernel
                sums[4] += of_bias
        before = kept[rows] if kept.numel() else strips.middle('before')
        grad_hidden = _convolve(strips.all('grad'), turned, None)
        grad_before = torch.ops.aten.gelu_backward(grad_hidden, before)
        if of_weights:
            _add_product(sums[0], grad_before, x[rows])
            sums[1] += grad_before.sum((0, 1))
        _linear(grad_before, weight1.t(), None, grad_x[rows])
    return [grad_x, *(total.to(p.dtype) for total, p in zip(sums, wanted))]


def _keep(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight1, bias1, weight2, _, kernel, kernel_bias, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], x, weight1, bias1, weight2, kernel, kernel_bias)


def _gradients(ctx: Context, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    of_weights = any(ctx.needs_input_grad[1:])
    kept, x, weight1, bias1, weight2, kernel, kernel_bias = ctx.saved_tensors
    grad_x, *found = _backward(
        grad, kept, x, weight1, bias1, weight2, kernel, kernel_bias, of_weights
    )
    grad_bias2 = grad.sum((0, 1, 2)) if ctx.needs_input_grad[4] else None
    of_others: list[Tensor | None] = [*found, *[None] * (5 - len(found))]
    return grad_x, *of_others[:3], grad_bias2, *of_others[3:], None


gradient(_forward, _keep, _gradients, by=_backward)


class _Strips:
    """Strips of a few rows of a map, and bands: values of their rows and of those beside them.

    What a strip shares with the one before it stays in the band.

    Args:
        x (Tensor): Map, (B, H, W, C).
        dims (int): Channels of the bands.
        margin (int): Rows above and below a strip that belong to its bands; zeros beyond the map.
    """

    def __init__(self, x: Tensor, dims: int, margin: int) -> None:
        self.x, self.dims, self.margin = x, dims, margin
        block = _BLOCK_WITH_CONV if margin else _BLOCK
        self.rows = max(1, 2 * margin, min(x.shape[1], block // x.shape[2]))
        self._bands: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[tuple[tuple[int, slice], tuple[int, slice]]]:
        """Each strip's place on the map, and that of the rows that are new to its bands."""
        height = self.x.shape[1]
        for sample in range(len(self.x)):
            for first in range(0, height, self.rows):
                last = min(first + self.rows, height)
                begin = first + self.margin if first else 0
                end = min(last + self.margin, height)
                self._strip = slice(self.margin, self.margin + last - first)
                self._new = slice(begin - first + self.margin, end - first + self.margin)
                for band in self._bands.values():
                    if first:
                        band[: 2 * self.margin] = band[self.rows : self.rows + 2 * self.margin]
                    self._clear_beyond(band, first)
                yield (sample, slice(first, last)), (sample, slice(begin, end))

    def _band(self, name: str) -> Tensor:
        if name not in self._bands:
            shape = (self.rows + 2 * self.margin, self.x.shape[2], self.dims)
            self._bands[name] = self.x.new_empty(shape)
            self._clear_beyond(self._bands[name], first=0)
        return self._bands[name]

    def _clear_beyond(self, band: Tensor, first: int) -> None:
        """Set what lies beyond the map to zero."""
        if first == 0:
            band[: self.margin] = 0
        band[self._new.stop :] = 0

    def new(self, name: str) -> Tensor:
        """Rows of a band to be filled now."""
        return self._band(name)[self._new]

    def middle(self, name: str) -> Tensor:
        """Rows of a band that are the strip itself."""
        return self._band(name)[self._strip]

    def all(self, name: str) -> Tensor:
        """All rows of a band."""
        return self._band(name)[: self._strip.stop + self.margin]


def _tokens(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a^T b of two strips' tokens."""
    if total.dtype == a.dtype:
        total.addmm_(_tokens(a).t(), _tokens(b))
    else:
        total += _tokens(a).t() @ _tokens(b)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(_tokens(x), weight.t(), out=_tokens(out))
    else:
        torch.addmm(bias, _tokens(x), weight.t(), out=_tokens(out))


def _convolve(x: Tensor, kernel: Tensor | None, bias: Tensor | None) -> Tensor:
    """A 3x3 depth-wise convolution of a strip, if any: (rows + 2, W, C) to (rows, W, C)."""
    if kernel is None:
        return x
    y = F.conv2d(_image(x), kernel, bias, padding=(0, 1), groups=len(kernel))
    return y.permute(0, 2, 3, 1)[0]


def _image(x: Tensor) -> Tensor:
    return x[None].permute(0, 3, 1, 2)
