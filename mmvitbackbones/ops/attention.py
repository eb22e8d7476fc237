"""Softmax attention: among sequences, and of windows to what they see on maps.

``softmax(q k^T / sqrt(d) + bias) v``, over the keys that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import flop_counter

from . import cpu, cuda
from .backend import cached, records_one_graph, why_plain
from .chunked import at_a_time, in_parts, token_slices
from .fused import has_small_channels, mask_as_channels, without_plans
from .watching import is_watched, shown
from .windows import Neighbourhood, grid, merge


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    valid: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Softmax attention of tokens that lie ready, by torch's own fused kernels.

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
        Tensor: (B, heads, N, d).
    """
    mask, scale = None, None  # torch's own: a tracer would round ours to float32
    if bias is not None:
        # On a CPU half types take a bias in float32; other devices, and exported files, do not.
        half = q.dtype.itemsize == 2 and bias.dtype == torch.float32
        exact = half and q.device.type == 'cpu' and not records_one_graph()
        mask = bias[None] if exact else bias[None].to(q.dtype)
    if valid is not None:
        valid = valid.repeat(q.shape[0] // valid.shape[0], 1)[:, None, None]
        if mask is None:
            mask = valid
        elif has_small_channels(q, k) and not (is_watched() or records_one_graph()):
            scale = q.shape[-1] ** -0.5  # without the channels to come
            q, k = mask_as_channels(q, k, valid)
        else:
            mask = mask.masked_fill(~valid, float('-inf'))
    if is_watched() or (q.shape[0] == 0 and mask is not None):
        # torch's own shows no weights, and leaves the bias of an empty batch without a gradient.
        scores = q * (scale or q.shape[-1] ** -0.5) @ k.mT
        if mask is not None:
            is_flags = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, float('-inf')) if is_flags else scores + mask
        weights = F.dropout(scores.softmax(-1), dropout_p)
        return shown(weights).to(v.dtype) @ v
    with torch.autocast('cpu', enabled=False), without_plans(q):  # autocast would round the bias
        y = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, scale=scale)
    # Its order in memory is that of the kernel that runs, and an exported graph runs by any.
    return y.clone(memory_format=torch.contiguous_format) if records_one_graph() else y


def weighted_attention(q: Tensor, k: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """Softmax attention whose weights are multiplied, ``(softmax(q k^T / sqrt(d)) * weight) v``.

    Args:
        q (Tensor): Queries, (B, heads, N, d).
        k (Tensor): Keys, (B, heads, K, d).
        v (Tensor): Values, (B, heads, K, d).
        weight (Tensor): (heads, N, K), of the type in which the weights are multiplied.

    Returns:
        Tensor: (B, heads, N, d).
    """
    scores = q * q.shape[-1] ** -0.5 @ k.mT
    return shown(scores.softmax(-1, dtype=weight.dtype) * weight).to(v.dtype) @ v


def attend(
    maps: Sequence[Tensor],
    seen: Sequence[Neighbourhood],
    bias: Tensor | None = None,
    sizes: Sequence[Sequence[int]] | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention of each window's tokens to what the window sees on one or more maps.

    Args:
        maps (Sequence[Tensor]): Projections to queries, keys and values, (B, H, W, 3, heads, d)
            each, of whole windows. All have as many windows; the queries are those of the first.
        seen (Sequence[Neighbourhood]): What a window sees on each of the maps.
        bias (Tensor, optional): (heads, N, K), with the N tokens of a window and its K keys: map
            after map, each map's in row-major order.
        sizes (Sequence[Sequence[int]], optional): Height and width of each map without its
            padding, which is not attended to; None: nothing is padding.
        dropout_p (float): Probability of dropping an attention weight. Defaults to 0.

    Returns:
        Tensor: (B, H, W, heads * d), with H and W of the first map.
    """
    seen = tuple(seen)
    sizes = [x.shape[1:3] for x in maps] if sizes is None else sizes
    valid = None
    if not all(one.sees_only_the_map(size) for one, size in zip(seen, sizes)):
        valid = _valid(seen, tuple(map(tuple, sizes)), maps[0].device)
    return _attend(maps, seen, bias, valid, dropout_p)


def attend_map(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Callable[..., Tensor],
    learned: Sequence[Tensor],
    size: Sequence[int],
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention of all tokens of a map, whose bias of all pairs is too large to keep.

    Args:
        q (Tensor): Queries, (B, heads, H * W, d).
        k (Tensor): Keys, (B, heads, K, d).
        v (Tensor): Values, (B, heads, K, d).
        bias (Callable): Makes the bias of some queries, given their slice, some rows or a part of
            one, and what is ``learned``: (heads, queries, K).
        learned (Sequence[Tensor]): What biases are made of.
        size (Sequence[int]): Height H and width W of the map.
        dropout_p (float): Probability of dropping an attention weight. Defaults to 0.

    Returns:
        Tensor: (B, heads, H * W, d).
    """

    def compute(queries: slice, k: Tensor, v: Tensor, *learned: Tensor) -> Tensor:
        part = q[:, :, queries]
        return softmax_attention(part, k, v, bias(queries, *learned), dropout_p=dropout_p)

    height, width = size
    parts = token_slices(height, width, at_a_time(k[..., 0].numel(), k))
    shared = (k, v, *learned)
    return in_parts(compute, shared, parts, height * width, dim=2, random=dropout_p > 0)


def attend_sequences(
    qkv: Tensor, bias: Tensor | None = None, valid: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """Attention among the tokens of each sequence.

    Args:
        qkv (Tensor): Projections to queries, keys and values, (B, N, 3, heads, d).
        bias (Tensor, optional): (heads, N, N).
        valid (Tensor, optional): Boolean, (windows, N), as in :func:`softmax_attention`.
        dropout_p (float): Probability of dropping an attention weight. Defaults to 0.

    Returns:
        Tensor: (B, N, heads * d).
    """
    if _has_kernel(qkv, bias, valid, dropout_p):
        # A sequence is a window of one row, on a map of one row.
        seen, rows = [Neighbourhood((1, qkv.shape[1]))], qkv.flatten(0, 1)[None]
        if qkv.device.type == 'cuda':  # one a sample: its numbers are counted in 32 bits
            windows = 1 if valid is None else valid.shape[0]
            rows = qkv.unflatten(0, (-1, windows)).flatten(1, 2)
        y = _kernel(qkv)([rows[:, None]], seen, bias, valid)
        return y.view(*qkv.shape[:2], y.shape[-1])
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return softmax_attention(q, k, v, bias, valid, dropout_p).transpose(1, 2).flatten(2)


def _attend(
    maps: Sequence[Tensor],
    seen: tuple[Neighbourhood, ...],
    bias: Tensor | None,
    valid: Tensor | None,
    dropout_p: float = 0.0,
) -> Tensor:
    x, window = maps[0], seen[0].window
    if _has_kernel(x, bias, valid, dropout_p):
        return _kernel(x)(maps, seen, bias, valid)
    parts = [each.unbind(3) for each in maps]
    q = Neighbourhood(window).gather(parts[0][0]).flatten(0, 1)
    # Keys apart from values: a copy of them with a mask replaces them.
    k, v = (
        torch.cat([one.gather(each[i]).flatten(0, 1) for each, one in zip(parts, seen)], dim=1)
        for i in (1, 2)
    )
    q, k, v = (tokens.transpose(1, 2) for tokens in (q, k, v))
    y = softmax_attention(q, k, v, bias, valid, dropout_p).transpose(1, 2).flatten(2)
    size = x.shape[1:3]
    return merge(y.unflatten(0, (x.shape[0], *grid(size, window))), window, size)


def _has_kernel(x: Tensor, bias: Tensor | None, valid: Tensor | None, dropout_p: float) -> bool:
    # Without bias and mask, torch's own kernels are as good.
    simple = bias is None and valid is None
    return not simple and dropout_p == 0.0 and why_plain(x, attention=True) is None


def _kernel(x: Tensor) -> Callable[..., Tensor]:
    return cuda.attend_in_place if x.device.type == 'cuda' else cpu.attend_in_blocks


@cached
def _valid(
    seen: tuple[Neighbourhood, ...], sizes: tuple[tuple[int, ...], ...], device: torch.device
) -> Tensor:
    """Which keys of each window are on their maps, map after map: (windows, K)."""
    return torch.cat([one.on_map(size, device) for one, size in zip(seen, sizes)], dim=1)


def _count_fused_attention() -> None:
    """Give ``FlopCounterMode`` the formula of fused attention on CPUs, which torch lacks."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if fused in flop_counter.flop_registry:
        return

    @flop_counter.register_flop_formula(fused)
    def count(q: torch.Size, k: torch.Size, v: torch.Size, *args: object, **kwargs: object) -> int:
        return flop_counter.sdpa_flop_count(q, k, v)

    @flop_counter.register_flop_formula(
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    )
    def count_backward(
        grad: torch.Size,
        q: torch.Size,
        k: torch.Size,
        v: torch.Size,
        *args: object,
        **kwargs: object,
    ) -> int:
        return flop_counter.sdpa_backward_flop_count(grad, q, k, v)


_count_fused_attention()
