"""Attention of windows to what they see, a block of a few windows at a time.

Neither scores nor gathered keys are kept: the backward pass gathers and computes them again. All
blocks use the same memory, as fresh memory costs about as much time as filling it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..registration import Context, gradient, operator
from ..windows import Neighbourhood, as_numbers, from_numbers
from .strips import add_strip, add_windows, read_strip, strip_shape, view_windows

# Scores computed at a time: small enough to stay in the cache.
_BLOCK_BYTES = 16 * 2**20


def attend_in_blocks(
    maps: Sequence[Tensor],
    seen: Sequence[Neighbourhood],
    bias: Tensor | None,
    valid: Tensor | None,
) -> Tensor:
    """Compute as :func:`mmvitbackbones.ops.attention.attend`.

    Args:
        maps (Sequence[Tensor]): See there.
        seen (Sequence[Neighbourhood]): See there.
        bias (Tensor, optional): See there.
        valid (Tensor, optional): Boolean, (windows, K), True where a key may be attended to.

    Returns:
        Tensor: (B, H, W, heads * d), with H and W of the first map.
    """
    return _forward(list(maps), as_numbers(seen), bias, valid)


def _empty(
    maps: Sequence[Tensor], seen: Sequence[int], bias: Tensor | None, valid: Tensor | None
) -> Tensor:
    samples, height, width, _, heads, dims = maps[0].shape
    return maps[0].new_empty(samples, height, width, heads * dims)


@operator(
    'window_attention(Tensor[] maps, SymInt[] seen, Tensor? bias, Tensor? valid) -> Tensor', _empty
)
@torch.autocast('cpu', enabled=False)  # scores stay in float32
def _forward(
    maps: Sequence[Tensor], seen: Sequence[int], bias: Tensor | None, valid: Tensor | None
) -> Tensor:
    blocks = _Blocks(maps, from_numbers(seen), bias, valid)
    out = _empty(maps, seen, bias, valid)
    out_windows = view_windows(blocks.own, out.unflatten(3, (1, blocks.heads, -1)))
    for block in blocks:
        q, k, v = blocks.read(block)
        torch.bmm(blocks.weights(block, q, k), v, out=q)
        out_windows[block] = blocks.tokens(q[None])
    return out


def _empty_gradients(
    grad: Tensor,
    maps: Sequence[Tensor],
    seen: Sequence[int],
    bias: Tensor | None,
    valid: Tensor | None,
    of_bias: bool,
) -> list[Tensor]:
    inputs = maps if bias is None or not of_bias else [*maps, bias]
    return [torch.empty_like(x) for x in inputs]


@operator(
    'window_attention_backward(Tensor grad, Tensor[] maps, SymInt[] seen, Tensor? bias, '
    'Tensor? valid, bool of_bias) -> Tensor[]',
    _empty_gradients,
)
@torch.autocast('cpu', enabled=False)
def _backward(
    grad: Tensor,
    maps: Sequence[Tensor],
    seen: Sequence[int],
    bias: Tensor | None,
    valid: Tensor | None,
    of_bias: bool,
) -> list[Tensor]:
    """Gradients of the maps, and behind them that of the bias if it is wanted."""
    neighbourhoods = from_numbers(seen)
    blocks = _Blocks(maps, neighbourhoods, bias, valid)
    grads = [torch.empty_like(x) for x in maps]
    for x, neighbourhood in zip(grads, neighbourhoods):
        if x is not grads[0]:
            x[:, :, :, 0] = 0  # queries are those of the first map
        if not neighbourhood.is_window:
            x[:, :, :, 1:] = 0  # margins overlap: gradients are added up
    grad_q = view_windows(blocks.own, grads[0][:, :, :, :1])
    grad_out = view_windows(blocks.own, grad.unflatten(3, (1, blocks.heads, -1)))
    grad_bias = None
    if bias is not None and of_bias:
        grad_bias = torch.zeros_like(bias, dtype=blocks.dtype)
    for block in blocks:
        q, k, v = blocks.read(block)
        weights = blocks.weights(block, q, k)
        (grad,) = blocks.gather('grad', [grad_out[block]])
        grad_scores = torch.bmm(grad, v.mT, out=blocks.buffer('grad_scores', weights.shape))
        torch.bmm(weights.mT, grad, out=v)  # from here on v is its gradient
        torch.ops.aten._softmax_backward_data.out(
            grad_scores, weights, -1, blocks.dtype, grad_input=grad_scores
        )
        if grad_bias is not None:
            grad_bias += grad_scores.unflatten(0, (-1, len(grad_bias))).sum(0)
        torch.bmm(grad_scores, k, out=grad)
        grad_q[block] = blocks.tokens(grad[None].mul_(blocks.scale))
        torch.bmm(grad_scores.mT, q, out=k)  # the scale is in q; k is its gradient
        blocks.add(block, grads)
    if bias is None or grad_bias is None:
        return grads
    return [*grads, grad_bias.to(bias.dtype)]


def _keep(ctx: Context, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, ctx.seen, bias, valid = inputs
    ctx.save_for_backward(bias, valid, *maps)


def _gradients(ctx: Context, grad: Tensor) -> tuple[list[Tensor], None, Tensor | None, None]:
    bias, valid, *maps = ctx.saved_tensors
    of_bias = ctx.needs_input_grad[2]
    grads = _backward(grad, maps, ctx.seen, bias, valid, of_bias)
    return grads[: len(maps)], None, grads[-1] if of_bias else None, None


gradient(_forward, _keep, _gradients, by=_backward)


class _Blocks:
    """Blocks of a few windows beside each other, and the memory that they share.

    Args:
        maps (Sequence[Tensor]): See :func:`attend_in_blocks`.
        seen (Sequence[Neighbourhood]): See :func:`attend_in_blocks`.
        bias (Tensor, optional): See :func:`attend_in_blocks`.
        valid (Tensor, optional): See :func:`attend_in_blocks`.
    """

    def __init__(
        self,
        maps: Sequence[Tensor],
        seen: Sequence[Neighbourhood],
        bias: Tensor | None,
        valid: Tensor | None,
    ) -> None:
        x = maps[0]
        self.maps, self.seen = maps, seen
        self.bias, self.valid = bias, valid
        self.own = Neighbourhood(seen[0].window)
        self.queries = view_windows(self.own, x[:, :, :, :1])
        self.heads = x.shape[4]
        self.scale = x.shape[-1] ** -0.5
        self.dtype = torch.promote_types(x.dtype, torch.float32)
        self.lengths = [one.size[0] * one.size[1] for one in seen]
        self._buffers: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[tuple[int, int, slice]]:
        """Sample, row and columns of each block, of about ``_BLOCK_BYTES`` of scores."""
        if not self.queries.numel():
            return
        samples, rows, columns, height, width = self.queries.shape[:5]
        scores = self.heads * height * width * sum(self.lengths)
        most = max(1, _BLOCK_BYTES // (scores * self.dtype.itemsize))
        step = -(-columns // -(-columns // most))  # of about the same size each
        for sample in range(samples):
            for row in range(rows):
                for first in range(0, columns, step):
                    yield sample, row, slice(first, min(first + step, columns))

    def buffer(self, name: str, shape: Sequence[int]) -> Tensor:
        """Memory of a name, with whatever an earlier block left in it."""
        size = torch.Size(shape).numel()
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = self.maps[0].new_empty(size, dtype=self.dtype)
        return self._buffers[name][:size].view(shape)

    def gather(self, name: str, views: Sequence[Tensor]) -> Tensor:
        """Copy views (windows, h, w, P, heads, d) to one (P, windows * heads, sum of h * w, d)."""
        windows, _, _, parts, heads, dims = views[0].shape
        lengths = [view.shape[1] * view.shape[2] for view in views]
        out = self.buffer(name, (parts, windows, heads, sum(lengths), dims))
        for tokens, view in zip(out.split(lengths, dim=3), views):
            tokens.unflatten(3, view.shape[1:3]).copy_(view.permute(3, 0, 4, 1, 2, 5))
        return out.flatten(1, 2)

    def tokens(self, x: Tensor, neighbourhood: Neighbourhood | None = None) -> Tensor:
        """Undo :meth:`gather` for one view, by default that of a window's own tokens."""
        x = x.unflatten(2, (neighbourhood or self.own).size).unflatten(1, (-1, self.heads))
        return x.permute(1, 3, 4, 0, 2, 5)

    def read(self, block: tuple[int, int, slice]) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values of a block, (windows * heads, tokens, d)."""
        (q,) = self.gather('q', [self.queries[block]]).mul_(self.scale)
        seen = []
        for i, (x, neighbourhood) in enumerate(zip(self.maps, self.seen)):
            strip = self._strip(i, x[:, :, :, 1:], neighbourhood, block)
            seen.append(view_windows(neighbourhood, strip[None])[0, 0, block[2]])
        self._keys = self.gather('keys', seen)
        return q, *self._keys

    def weights(self, block: tuple[int, int, slice], q: Tensor, k: Tensor) -> Tensor:
        """Attention weights of a block, (windows * heads, N, K)."""
        scores = self.buffer('scores', (len(q), q.shape[1], k.shape[1]))
        torch.bmm(q, k.mT, out=scores)
        each = scores.unflatten(0, (-1, self.heads))
        if self.bias is not None:
            each += self.bias
        if self.valid is not None:
            valid = self.valid[self._numbers(block) % len(self.valid)]
            if not valid.all():
                # Adding is several times as fast as filling in.
                each += torch.where(valid, 0.0, float('-inf')).to(self.dtype)[:, None, None]
        return torch.ops.aten._softmax.out(scores, -1, False, out=scores)

    def _numbers(self, block: tuple[int, int, slice]) -> Tensor:
        """Numbers of a block's windows, counted over all samples."""
        sample, row, columns = block
        before = (sample * self.queries.shape[1] + row) * self.queries.shape[2]
        device = self.queries.device
        return torch.arange(before + columns.start, before + columns.stop, device=device)

    def _strip(
        self, i: int, x: Tensor, neighbourhood: Neighbourhood, block: tuple[int, int, slice]
    ) -> Tensor:
        """What the block's row of windows sees on map ``i``: read when the row begins."""
        sample, row, columns = block
        if neighbourhood.is_window:
            height = neighbourhood.window[0]
            return x[sample, row * height : (row + 1) * height]
        strip = self._strip_buffer(f'strip {i}', strip_shape(neighbourhood, x))
        return read_strip(neighbourhood, x, sample, row, strip) if columns.start == 0 else strip

    def _strip_buffer(self, name: str, shape: Sequence[int]) -> Tensor:
        """Memory of shape (h, W, P, heads, d), in which a row of a window lies in one piece."""
        height, width, parts, heads, dims = shape
        strip = self.buffer(name, (parts, heads, height, width, dims))
        return strip.permute(2, 3, 0, 1, 4)

    def add(self, block: tuple[int, int, slice], grads: Sequence[Tensor]) -> None:
        """Add the gradients that now lie where the block's keys and values were to the maps'."""
        sample, row, columns = block
        parts = self._keys.split(self.lengths, dim=2)
        for i, (x, neighbourhood, part) in enumerate(zip(grads, self.seen, parts)):
            x, windows = x[:, :, :, 1:], self.tokens(part, neighbourhood)
            if neighbourhood.is_window:
                view_windows(neighbourhood, x)[block] = windows
                continue
            strip = self._strip_buffer(f'grad strip {i}', strip_shape(neighbourhood, x))
            if columns.start == 0:
                strip.zero_()
            add_windows(neighbourhood, strip, columns.start, windows)
            if columns.stop == self.queries.shape[2]:
                add_strip(neighbourhood, x, sample, row, strip)
