"""The one attention call that every backbone goes through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .windows import Neighbourhood

# Scores computed at a time on a CPU: small enough to stay in the cache.
_BLOCK_BYTES = 4 * 2**20
# Tokens at a time on a CPU where nothing is kept for a backward pass: fresh memory for the
# projections of a whole map costs as much time as computing them.
_GROUP = 2**14


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    valid: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Softmax attention, ``softmax(q k^T / sqrt(d) + bias) v``, by torch's own fused kernels.

    Args:
        q (Tensor): Queries, (B, heads, N, d); B counts the windows of all the samples.
        k (Tensor): Keys, (B, heads, K, d).
        v (Tensor): Values, (B, heads, K, d).
        bias (Tensor, optional): Added to the scores of every window, (heads, N, K).
        valid (Tensor, optional): Boolean, (windows, K), True where a key may be attended to;
            ``windows`` divides B, and the windows of a sample follow each other. Every window
            needs a valid key.
        dropout_p (float): Probability of dropping an attention weight. Defaults to 0.

    Returns:
        Tensor: (B, heads, N, d), laid out so that ``.transpose(1, 2).flatten(2)`` is a view.
    """
    mask = None if bias is None else bias[None].to(q.dtype)
    if valid is not None:
        valid = valid.repeat(q.shape[0] // valid.shape[0], 1)[:, None, None]
        mask = valid if mask is None else mask.masked_fill(~valid, float('-inf'))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)


def window_attention(
    maps: Sequence[Tensor],
    neighbourhoods: Sequence[Neighbourhood],
    bias: Tensor | None = None,
    valid: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """:func:`attention` of each window's tokens to what the window sees on one or more maps.

    On a CPU, biases and masks go through :class:`_CPUAttention`.

    Args:
        maps (Sequence[Tensor]): Projections to queries, keys and values, (B, H, W, 3, heads, d)
            each. All have as many windows; the queries are those of the first map.
        neighbourhoods (Sequence[Neighbourhood]): What a window sees on each of the maps.
        bias (Tensor, optional): (heads, N, K), with the N tokens of a window and its K keys: map
            after map, each map's in row-major order.
        valid (Tensor, optional): Boolean, (windows, K), as in :func:`attention`.
        dropout_p (float): Probability of dropping an attention weight. Defaults to 0.

    Returns:
        Tensor: (B, H, W, heads * d), with H and W of the first map.
    """
    x = maps[0]
    if x.device.type == 'cpu' and dropout_p == 0.0 and not (bias is None and valid is None):
        return _CPUAttention.apply(tuple(neighbourhoods), bias, valid, *maps).flatten(3)
    windows = _Windows(maps, neighbourhoods)
    q, k, v = (
        torch.cat([view.flatten(0, 2).flatten(1, 2) for view in views], dim=1).transpose(1, 2)
        for views in windows.views
    )
    out = attention(q, k, v, bias, valid, dropout_p).transpose(1, 2)
    out = out.unflatten(1, neighbourhoods[0].window).unflatten(0, windows.shape)
    return out.transpose(2, 3).flatten(3, 4).flatten(1, 2).flatten(3)


class _Windows:
    """Queries, keys and values of all windows, as views of maps and of their margins.

    Args:
        maps (Sequence[Tensor]): (B, H, W, 3, heads, d) each.
        neighbourhoods (Sequence[Neighbourhood]): What a window sees on each of the maps.
    """

    def __init__(self, maps: Sequence[Tensor], neighbourhoods: Sequence[Neighbourhood]) -> None:
        own = Neighbourhood(neighbourhoods[0].window)
        padded = [n.pad(x[:, :, :, 1:]) for x, n in zip(maps, neighbourhoods)]
        self.views = (
            [own.view(maps[0][:, :, :, 0])],
            [n.view(x[:, :, :, 0]) for x, n in zip(padded, neighbourhoods)],
            [n.view(x[:, :, :, 1]) for x, n in zip(padded, neighbourhoods)],
        )
        self.shape = self.views[0][0].shape[:3]

    def blocks(self) -> Iterator[tuple[int, int, slice]]:
        """Sample, row and columns of windows, of about ``_BLOCK_BYTES`` of scores."""
        samples, rows, columns, *window, heads, _ = self.views[0][0].shape
        keys = sum(view.shape[3] * view.shape[4] for view in self.views[1])
        item = max(self.views[0][0].element_size(), 4)
        step = max(1, _BLOCK_BYTES // (heads * window[0] * window[1] * keys * item))
        for sample in range(samples):
            for row in range(rows):
                for first in range(0, columns, step):
                    yield sample, row, slice(first, min(first + step, columns))

    def number(self, block: tuple[int, int, slice]) -> int:
        """Number of a block's first window, counted over all the samples."""
        sample, row, columns = block
        return (sample * self.shape[1] + row) * self.shape[2] + columns.start

    def read(self, block: tuple[int, int, slice]) -> Iterator[Tensor]:
        """Queries, keys and values of a block, (windows, heads, tokens, d), at least float32."""
        return (_gather([view[block] for view in views]) for views in self.views)


def _gather(views: list[Tensor]) -> Tensor:
    """Copy views (windows, h, w, heads, d) to one (windows, heads, sum of all h * w, d)."""
    windows, _, _, heads, dims = views[0].shape
    lengths = [view.shape[1] * view.shape[2] for view in views]
    dtype = torch.promote_types(views[0].dtype, torch.float32)
    out = views[0].new_empty(windows, heads, sum(lengths), dims, dtype=dtype)
    for part, view in zip(out.split(lengths, dim=2), views):
        part.unflatten(2, view.shape[1:3]).copy_(view.permute(0, 3, 1, 2, 4))
    return out


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, valid: Tensor | None, first: int) -> Tensor:
    """Attention weights of windows, the first of which is the map's window number ``first``."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:
        scores += bias
    if valid is not None:
        keys = valid[torch.arange(first, first + len(q)) % len(valid)]
        if not keys.all():
            scores.masked_fill_(~keys[:, None, None], float('-inf'))
    return scores.softmax(-1)


class _CPUAttention(torch.autograd.Function):
    """Attention a few windows at a time, with a gradient for the bias.

    The scores of a block of windows stay in the cache. Neither they are kept nor the gathered
    keys: the backward pass gathers and computes them again.
    """

    @staticmethod
    @torch.autocast('cpu', enabled=False)  # scores stay in float32
    def forward(ctx, neighbourhoods, bias, valid, *maps):
        ctx.neighbourhoods = neighbourhoods
        ctx.save_for_backward(bias, valid, *maps)
        out = maps[0].new_empty(*maps[0].shape[:3], *maps[0].shape[4:])
        own = Neighbourhood(neighbourhoods[0].window)
        out_windows = own.view(out)
        windows = _Windows(maps, neighbourhoods)
        for block in windows.blocks():
            q, k, v = windows.read(block)
            weights = _weights(q, k, bias, valid, windows.number(block))
            out_windows[block] = _tokens(weights @ v, own)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        bias, valid, *maps = ctx.saved_tensors
        neighbourhoods = ctx.neighbourhoods
        own = Neighbourhood(neighbourhoods[0].window)
        # The first map's is filled to the last item; of the others, queries have none.
        grads = [torch.empty_like(maps[0]), *(torch.zeros_like(x) for x in maps[1:])]
        grad_padded = [
            g[:, :, :, 1:] if n.is_window else torch.zeros_like(n.pad(g[:, :, :, 1:]))
            for g, n in zip(grads, neighbourhoods)
        ]
        grad_q, grad_out = own.view(grads[0][:, :, :, 0]), own.view(grad_out)
        grad_bias = None
        if ctx.needs_input_grad[1]:
            grad_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        windows = _Windows(maps, neighbourhoods)
        lengths = [n.size[0] * n.size[1] for n in neighbourhoods]
        for block in windows.blocks():
            q, k, v = windows.read(block)
            grad = _gather([grad_out[block]])
            weights = _weights(q, k, bias, valid, windows.number(block))
            grad_v = weights.transpose(-2, -1) @ grad
            grad_scores = torch._softmax_backward_data(
                grad @ v.transpose(-2, -1), weights, -1, weights.dtype
            )
            if grad_bias is not None:
                grad_bias += grad_scores.sum(0)
            grad_scores *= q.shape[-1] ** -0.5
            grad_q[block] = _tokens(grad_scores @ k, own)
            grad_k = grad_scores.transpose(-2, -1) @ q
            split = zip(grad_k.split(lengths, 2), grad_v.split(lengths, 2))
            for padded, n, (part_k, part_v) in zip(grad_padded, neighbourhoods, split):
                n.put_gradient(padded[:, :, :, 0], block, _tokens(part_k, n))
                n.put_gradient(padded[:, :, :, 1], block, _tokens(part_v, n))
        for g, padded, n in zip(grads, grad_padded, neighbourhoods):
            if not n.is_window:
                g[:, :, :, 1:] = n.unpad_gradient(padded)
        return None, None if grad_bias is None else grad_bias.to(bias.dtype), None, *grads


def _tokens(x: Tensor, neighbourhood: Neighbourhood) -> Tensor:
    """From (windows, heads, N, d) to (windows, h, w, heads, d)."""
    return x.transpose(1, 2).unflatten(1, neighbourhood.size)


class SelfAttention(nn.Module):
    """Multi-head self-attention with one joint projection to queries, keys and values.

    Args:
        dims (int): Channels of the tokens.
        num_heads (int): Number of heads; divides ``dims``.
        attn_drop (float): Dropout of the attention weights. Defaults to 0.
        proj_drop (float): Dropout of the output. Defaults to 0.
    """

    def __init__(
        self, dims: int, num_heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, bias: Tensor | None = None, valid: Tensor | None = None) -> Tensor:
        """Attend among the N tokens of each of the B sequences.

        Args:
            x (Tensor): Tokens, (B, N, C).
            bias (Tensor, optional): See :func:`attention`, (heads, N, N).
            valid (Tensor, optional): See :func:`attention`, (windows, N).

        Returns:
            Tensor: (B, N, C).
        """
        size = max(1, _GROUP // x.shape[1])
        if x.device.type != 'cpu' or torch.is_grad_enabled() or len(x) <= size:
            return self._among(x, bias, valid)
        valid = None if valid is None else valid.repeat(len(x) // len(valid), 1)
        return torch.cat(
            [
                self._among(part, bias, None if valid is None else valid[i * size :][: len(part)])
                for i, part in enumerate(x.split(size))
            ]
        )

    def _among(self, x: Tensor, bias: Tensor | None, valid: Tensor | None) -> Tensor:
        # A sequence is a window of one row, on a map of one row.
        sequence = Neighbourhood((1, x.shape[1]))
        row = x.flatten(0, 1)[None, None]
        return self.attend([row], [sequence], bias, valid).view_as(x)

    def attend(
        self,
        maps: Sequence[Tensor],
        neighbourhoods: Sequence[Neighbourhood],
        bias: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Project maps, and attend to what each window sees on them.

        Args:
            maps (Sequence[Tensor]): (B, H, W, C) each; the queries are those of the first.
            neighbourhoods (Sequence[Neighbourhood]): See :func:`window_attention`.
            bias (Tensor, optional): See :func:`window_attention`.
            valid (Tensor, optional): See :func:`window_attention`.

        Returns:
            Tensor: (B, H, W, C), of the first map's size.
        """
        qkv = [self.qkv(x).unflatten(-1, (3, self.num_heads, -1)) for x in maps]
        dropout_p = self.attn_drop if self.training else 0.0
        y = window_attention(qkv, neighbourhoods, bias, valid, dropout_p)
        return self.proj_drop(self.proj(y))
