"""The one attention call that every backbone goes through."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Scores computed at a time on a CPU: small enough to stay in the cache.
_BLOCK_BYTES = 2 * 2**20
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
    """Softmax attention, ``softmax(q k^T / sqrt(d) + bias) v``, over the valid keys.

    On a CPU, small windows and biases that need a gradient go through :class:`_CPUAttention`,
    which keeps no score; all else through torch's own fused kernels.

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
    if dropout_p == 0.0 and _suits_blocks(q, k, bias, valid):
        return _CPUAttention.apply(bias, valid, q, k, v)
    mask = None if bias is None else bias[None].to(q.dtype)
    if valid is not None:
        valid = valid.repeat(q.shape[0] // valid.shape[0], 1)[:, None, None]
        mask = valid if mask is None else mask.masked_fill(~valid, float('-inf'))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)


def self_attention(
    qkv: Tensor, bias: Tensor | None = None, valid: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """:func:`attention` whose queries, keys and values come from one projection.

    Args:
        qkv (Tensor): (B, N, 3, heads, d).
        bias (Tensor, optional): (heads, N, N).
        valid (Tensor, optional): Boolean, (windows, N).
        dropout_p (float): Probability of dropping an attention weight. Defaults to 0.

    Returns:
        Tensor: (B, heads, N, d).
    """
    q, k, v = _unpack(qkv)
    if dropout_p == 0.0 and _suits_blocks(q, k, bias, valid):
        # As one argument, its gradient is written in place instead of put together.
        return _CPUAttention.apply(bias, valid, qkv)
    return attention(q, k, v, bias, valid, dropout_p)


def _unpack(*qkv: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, given as such or as one (B, N, 3, heads, d)."""
    return qkv if len(qkv) == 3 else qkv[0].permute(2, 0, 3, 1, 4).unbind(0)


def _suits_blocks(q: Tensor, k: Tensor, bias: Tensor | None, valid: Tensor | None) -> bool:
    """Whether :class:`_CPUAttention` is the faster, or the only lean, way."""
    if q.device.type != 'cpu' or (bias is None and valid is None):
        return False
    # Torch's fused CPU call materialises all scores when its bias needs a gradient.
    needs_grad = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    return needs_grad or _window_bytes(q, k) <= _BLOCK_BYTES


class _CPUAttention(torch.autograd.Function):
    """Attention a few windows at a time, with a gradient for the bias.

    The scores of a block of windows stay in the cache, and none is kept: the backward pass
    computes the attention weights again.
    """

    @staticmethod
    @torch.autocast('cpu', enabled=False)  # scores stay in float32
    def forward(ctx, bias, valid, *qkv):
        ctx.save_for_backward(bias, valid, *qkv)
        q, k, v = _unpack(*qkv)
        out = _empty_like_tokens(q)
        for block in _blocks(q, k):
            weights = _weights(q, k, bias, valid, block)
            out[block] = weights @ v[block].to(weights.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        bias, valid, *qkv = ctx.saved_tensors
        if len(qkv) == 3:
            grads = [_empty_like_tokens(x) for x in qkv]
        else:
            grads = [torch.empty_like(*qkv)]
        q, k, v = _unpack(*qkv)
        grad_q, grad_k, grad_v = _unpack(*grads)
        scale = q.shape[-1] ** -0.5
        grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        for block in _blocks(q, k):
            weights = _weights(q, k, bias, valid, block)
            qb, kb, vb, gb = (x[block].to(weights.dtype) for x in (q, k, v, grad_out))
            grad_v[block] = weights.transpose(-2, -1) @ gb
            grad_scores = torch._softmax_backward_data(
                gb @ vb.transpose(-2, -1), weights, -1, weights.dtype
            )
            if grad_bias is not None:
                grad_bias += grad_scores.sum(0)
            grad_scores *= scale
            grad_q[block] = grad_scores @ kb
            grad_k[block] = grad_scores.transpose(-2, -1) @ qb
        return None if grad_bias is None else grad_bias.to(bias.dtype), None, *grads


def _weights(
    q: Tensor, k: Tensor, bias: Tensor | None, valid: Tensor | None, block: slice
) -> Tensor:
    """Attention weights of a block of windows, in float32 where the inputs are of a half type."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    scores = (q[block].to(dtype) * q.shape[-1] ** -0.5) @ k[block].to(dtype).transpose(-2, -1)
    if bias is not None:
        scores += bias
    if valid is not None:
        keys = valid[torch.arange(block.start, block.stop) % valid.shape[0]]
        if not keys.all():
            scores.masked_fill_(~keys[:, None, None], float('-inf'))
    return scores.softmax(-1)


def _window_bytes(q: Tensor, k: Tensor) -> int:
    return q.shape[1] * q.shape[2] * k.shape[2] * max(q.element_size(), 4)


def _blocks(q: Tensor, k: Tensor) -> Iterator[slice]:
    """Slices of the windows, of about ``_BLOCK_BYTES`` of scores."""
    step = max(1, _BLOCK_BYTES // _window_bytes(q, k))
    return (slice(i, min(i + step, len(q))) for i in range(0, len(q), step))


def _empty_like_tokens(x: Tensor) -> Tensor:
    """An empty (B, heads, N, d) that lies in memory as (B, N, heads, d), as linears want it."""
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2)


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
            return self._attend(x, bias, valid)
        valid = None if valid is None else valid.repeat(len(x) // len(valid), 1)
        return torch.cat(
            [
                self._attend(part, bias, None if valid is None else valid[i * size :][: len(part)])
                for i, part in enumerate(x.split(size))
            ]
        )

    def _attend(self, x: Tensor, bias: Tensor | None, valid: Tensor | None) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))
        x = self_attention(qkv, bias, valid, self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))
