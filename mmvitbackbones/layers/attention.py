"""The one attention call that every backbone goes through."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Scores computed at a time in the CPU backward: small enough to stay in the cache.
_BLOCK_BYTES = 2 * 2**20


def _find_cpu_kernel():
    """The fused CPU kernel that also returns the log-sum-exp, or None where torch has none."""
    op = getattr(torch.ops.aten, '_scaled_dot_product_flash_attention_for_cpu', None)
    if op is None or 'attn_mask' not in str(op.default._schema):
        return None
    return op


_CPU_KERNEL = _find_cpu_kernel()


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    valid: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Softmax attention, ``softmax(q k^T / sqrt(d) + bias) v``, over the valid keys.

    On a CPU the gradient of ``bias`` comes from :class:`_CPUAttention`, which keeps no score; on
    other devices from torch's own fused kernels.

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
    if q.device.type == 'cpu' and dropout_p == 0.0 and _CPU_KERNEL is not None:
        return _CPUAttention.apply(q, k, v, bias, valid)
    mask = None if bias is None else bias[None].to(q.dtype)
    if valid is not None:
        valid = valid.repeat(q.shape[0] // valid.shape[0], 1)[:, None, None]
        mask = valid if mask is None else mask.masked_fill(~valid, float('-inf'))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)


class _CPUAttention(torch.autograd.Function):
    """Fused CPU attention with a gradient for the bias.

    Torch's fused CPU call falls back to materialised scores when its bias needs a gradient. Here
    the forward pass keeps the log-sum-exp only, and the backward pass computes the weights again
    as exp(q k^T / sqrt(d) + bias - lse), a few windows at a time.
    """

    @staticmethod
    def forward(ctx, q, k, v, bias, valid):
        # A mask of the queries' precision is rounded; the kernel takes float32 beside half types.
        precise = torch.promote_types(q.dtype, torch.float32)
        shared = None if bias is None else bias.detach().to(precise)
        out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]).transpose(1, 2)
        lse = q.new_empty(q.shape[:3], dtype=precise)
        for block in _blocks(q, k, valid):
            mask = _block_bias(shared, valid, block)
            mask = mask if mask is None or mask.dim() == 4 else mask[None]
            out[block], lse[block] = _CPU_KERNEL(
                q[block], k[block], v[block], 0.0, False, attn_mask=mask
            )
        ctx.save_for_backward(q, k, v, bias, valid, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out):
        q, k, v, bias, valid, out, lse = ctx.saved_tensors
        precise, scale = lse.dtype, q.shape[-1] ** -0.5
        shared = None if bias is None else bias.detach().to(precise)
        grad_q, grad_k, grad_v = (_empty_like_tokens(x) for x in (q, k, v))
        grad_bias = torch.zeros_like(shared) if ctx.needs_input_grad[3] else None
        for block in _blocks(q, k, valid, _BLOCK_BYTES):
            qb, kb, vb, ob, gb = (x[block].to(precise) for x in (q, k, v, out, grad_out))
            weights = (qb * scale) @ kb.transpose(-2, -1)
            mask = _block_bias(shared, valid, block)
            if mask is not None:
                weights += mask
            weights.sub_(lse[block][..., None]).exp_()
            grad_v[block] = weights.transpose(-2, -1) @ gb
            grad_scores = gb @ vb.transpose(-2, -1)
            grad_scores.sub_((gb * ob).sum(-1, keepdim=True)).mul_(weights)
            if grad_bias is not None:
                grad_bias += grad_scores.sum(0)
            grad_scores *= scale
            grad_q[block] = grad_scores @ kb
            grad_k[block] = grad_scores.transpose(-2, -1) @ qb
        grad_bias = None if grad_bias is None else grad_bias.to(bias.dtype)
        return grad_q, grad_k, grad_v, grad_bias, None


def _blocks(q: Tensor, k: Tensor, valid: Tensor | None, max_bytes: int | None = None):
    """Slices of the windows: all in one where nothing is masked and no limit is given."""
    count = q.shape[0]
    if valid is None and max_bytes is None:
        return [slice(0, count)]
    per_window = q.shape[1] * q.shape[2] * k.shape[2] * 4
    step = max(1, (max_bytes or _BLOCK_BYTES) // per_window)
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


def _block_bias(bias: Tensor | None, valid: Tensor | None, block: slice) -> Tensor | None:
    """The bias of a block of windows, -inf at its invalid keys; shared where all are valid."""
    if valid is None:
        return bias
    keys = valid[torch.arange(block.start, block.stop) % valid.shape[0]]
    if keys.all():
        return bias
    keys = keys[:, None, None]
    if bias is None:
        bias = torch.zeros((), dtype=torch.float32)
    return torch.where(keys, bias, float('-inf'))


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
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        x = attention(*qkv.unbind(0), bias, valid, self.attn_drop if self.training else 0.0)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))
