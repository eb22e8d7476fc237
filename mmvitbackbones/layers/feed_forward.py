"""The feed-forward network of a transformer block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .cpu import on_cpu
from .depthwise import DepthwiseConv, depthwise_gradients, residual

# Tokens at a time on a CPU: their hidden values stay in the cache. With a convolution more, as its
# calls cost more.
_BLOCK = 1024
_BLOCK_WITH_CONV = 4096
# Up to this width the hidden values are computed again in the backward pass: there are many of
# them, each is cheap, and fresh memory for them costs about as much time.
_NARROW = 128


class FeedForward(nn.Module):
    """Two linears with a GELU between them.

    Args:
        dims (int): Channels of the tokens.
        hidden_dims (int): Channels between the linears.
        drop (float): Dropout after each linear. Defaults to 0.
        conv (bool): A residual 3x3 depth-wise convolution after the GELU. Defaults to False.
    """

    def __init__(self, dims: int, hidden_dims: int, drop: float = 0.0, conv: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims, hidden_dims)
        self.conv = DepthwiseConv(hidden_dims, 3) if conv else None
        self.fc2 = nn.Linear(hidden_dims, dims)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token; (..., C) in and out, with a convolution (B, H, W, C)."""
        drops = self.drop.p > 0 and self.training
        if on_cpu(x) and not drops:
            # Without a convolution, all tokens are a map one token wide.
            grid = x.flatten(0, -2)[None, :, None] if self.conv is None else x
            parameters = [p for m in (self.fc1, self.fc2, self.conv) if m for p in m.parameters()]
            keep = torch.is_grad_enabled() and x.shape[-1] > _NARROW
            return _CPUFeedForward.apply(keep, grid.contiguous(), *parameters).view_as(x)
        hidden = self.drop(F.gelu(self.fc1(x)))
        if self.conv is not None:
            hidden = hidden + self.conv(hidden)
        return self.drop(self.fc2(hidden))


class _CPUFeedForward(torch.autograd.Function):
    """A feed-forward network a few rows of tokens at a time.

    The hidden values, four times as many as the input's, are the largest tensors of a transformer
    block. Here those after the GELU never leave the cache, in narrow networks those before it
    neither, and the backward pass computes them again.
    """

    @staticmethod
    def forward(ctx, keep, x, weight1, bias1, weight2, bias2, kernel=None, kernel_bias=None):
        keep = keep and any(ctx.needs_input_grad)
        kept = x.new_empty(*x.shape[:3], len(weight1)) if keep else None
        strips = _Strips(x, len(weight1), margin=0 if kernel is None else 1)
        adding = None if kernel is None else residual(kernel)
        out = torch.empty_like(x)
        for rows, new in strips:
            before = strips.new('before') if kept is None else kept[new]
            _linear(x[new], weight1, bias1, before)
            torch.ops.aten.gelu.out(before, out=strips.new('hidden'))
            hidden = _convolve(strips.all('hidden'), adding, kernel_bias)
            _linear(hidden, weight2, bias2, out[rows])
        ctx.save_for_backward(x, weight1, bias1, weight2, kernel, kernel_bias, kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        x, *parameters, kept = ctx.saved_tensors
        weight1, bias1, weight2, kernel, kernel_bias = parameters
        grad_x, grad_out = torch.empty_like(x), grad_out.contiguous()
        sums = [None if p is None else torch.zeros_like(p) for p in parameters]
        grad_weight1, grad_bias1, grad_weight2, grad_kernel, grad_kernel_bias = sums
        adding = None if kernel is None else residual(kernel)
        # The gradient of a convolution is one with the kernel turned round.
        turned = None if kernel is None else adding.flip(2, 3)
        strips = _Strips(x, len(weight1), margin=0 if kernel is None else 1)
        for rows, new in strips:
            if kept is None:
                _linear(x[new], weight1, bias1, strips.new('before'))
            before = strips.new('before') if kept is None else kept[new]
            torch.ops.aten.gelu.out(before, out=strips.new('hidden'))
            _linear(grad_out[new], weight2.t(), None, strips.new('grad'))
            hidden = _convolve(strips.all('hidden'), adding, kernel_bias)
            grad_weight2.addmm_(_tokens(grad_out[rows]).t(), _tokens(hidden))
            if kernel is not None:
                # A strip has its margins above and below instead of padding.
                _, of_kernel, of_bias = depthwise_gradients(
                    _image(strips.middle('grad')),
                    _image(strips.all('hidden')),
                    kernel,
                    wanted=(False, True, True),
                    padding=(0, 1),
                )
                grad_kernel += of_kernel
                grad_kernel_bias += of_bias
            before = strips.middle('before') if kept is None else kept[rows]
            grad_hidden = _convolve(strips.all('grad'), turned, None)
            grad_before = torch.ops.aten.gelu_backward(grad_hidden, before)
            grad_weight1.addmm_(_tokens(grad_before).t(), _tokens(x[rows]))
            grad_bias1 += grad_before.sum((0, 1))
            _linear(grad_before, weight1.t(), None, grad_x[rows])
        grad_bias2 = grad_out.sum((0, 1, 2))
        grads = (grad_x, grad_weight1, grad_bias1, grad_weight2, grad_bias2)
        return None, *grads, grad_kernel, grad_kernel_bias


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
