"""Attention that decays with the Manhattan distance (RMT, Eq. 3 and 5 to 8).

Along rows, along columns, or among all tokens of a map: ``softmax(q k^T / sqrt(d) + D) v`` with
``D = log(gamma) * distance``, or ``(softmax(q k^T / sqrt(d)) * gamma ** distance) v``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import cuda
from .attention import softmax_attention, weighted_attention
from .backend import cached, why_plain
from .chunked import at_a_time, in_parts, place_on_map, slices, token_slices
from .windows import Neighbourhood

# Batches up to this size go along the columns sample by sample: a column's tokens are not
# contiguous, and autograd would keep a copy of the whole batch.
_FEW = 4


def log_gammas(num_heads: int, interval: tuple[float, float]) -> tuple[float, ...]:
    """Logarithms of each head's decay for a token's distance (Eq. 8).

    Head n of N decays by ``gamma = 1 - 2 ** (-a - (b - a) * n / N)``.

    Args:
        num_heads (int): Number of heads N.
        interval (tuple[float, float]): a and b, which say how far the first heads see, and the
            last ones.

    Returns:
        tuple[float, ...]: One a head.
    """
    first, last = interval
    return tuple(
        math.log(1 - 2 ** (-first - (last - first) * n / num_heads)) for n in range(num_heads)
    )


@cached
def log_decay(
    log_gamma: tuple[float, ...], length: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Logarithm of the decay between the tokens of a line.

    Args:
        log_gamma (tuple[float, ...]): Of :func:`log_gammas`.
        length (int): Tokens L beside each other.
        device (torch.device): Where the result is kept.
        dtype (torch.dtype): Its precision, float32 or float64.

    Returns:
        Tensor: (heads, L, L).
    """
    places = torch.arange(length, device=device)
    distance = (places[:, None] - places).abs()
    # As published, a float32 value in any case.
    gamma = torch.tensor(log_gamma, device=device, dtype=torch.float32).to(dtype)
    return gamma[:, None, None] * distance


def attend_rows(
    q: Tensor, k: Tensor, v: Tensor, log_gamma: tuple[float, ...] | None, product: bool
) -> Tensor:
    """Attend within each row (Eq. 6).

    Args:
        q (Tensor): Queries, (B, H, W, heads, d).
        k (Tensor): Keys, alike.
        v (Tensor): Values, alike.
        log_gamma (tuple[float, ...], optional): Of :func:`log_gammas`; None: no decay.
        product (bool): Whether the decay multiplies the softmax, or is added inside it.

    Returns:
        Tensor: (B, H, W, heads, d).
    """
    size = q.shape[:2]
    if log_gamma is not None and _reads_in_place(q, product):
        return _attend_in_place(q, k, v, (1, q.shape[2]), log_gamma)
    q, k, v = (t.flatten(0, 1).transpose(1, 2) for t in (q, k, v))
    if log_gamma is None:
        y = softmax_attention(q, k, v)
    else:
        length = q.shape[2]
        decay = log_decay(log_gamma, length, q.device, torch.promote_types(q.dtype, torch.float32))
        y = _attend_product(q, k, v, decay) if product else softmax_attention(q, k, v, decay)
    return y.transpose(1, 2).unflatten(0, size)


def _reads_in_place(q: Tensor, product: bool) -> bool:
    on_cuda = q.device.type == 'cuda' and not product
    return on_cuda and why_plain(q, attention=True) is None


def _attend_in_place(
    q: Tensor, k: Tensor, v: Tensor, window: tuple[int, int], log_gamma: tuple[float, ...]
) -> Tensor:
    """Attend within windows of a map, (B, H, W, heads, d); the decay is made on the way."""
    seen, decay = [Neighbourhood(window)], _log_gamma(log_gamma, q.device)
    return cuda.attend_in_place([q, k, v], seen, decay=decay).view_as(q)


@cached
def _log_gamma(log_gamma: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(log_gamma, device=device, dtype=torch.float32)


def _attend_product(q: Tensor, k: Tensor, v: Tensor, decay: Tensor) -> Tensor:
    """Of lines (lines, heads, tokens, d), in parts: torch has no fused kernel for a product."""
    weight = decay.exp()
    lines = q.shape[0]
    return in_parts(
        lambda part, q, k, v: weighted_attention(q[part], k[part], v[part], weight),
        (q, k, v),
        slices(lines, at_a_time(weight.numel(), weight)),
        lines,
        dim=0,
    )


def attend_columns(
    q: Tensor, k: Tensor, v: Tensor, log_gamma: tuple[float, ...] | None, product: bool
) -> Tensor:
    """Attend within each column; see :func:`attend_rows`."""
    if why_plain(q) is None and 1 < q.shape[0] <= _FEW:
        samples = zip(q.split(1), k.split(1), v.split(1))
        return torch.cat([attend_columns(*sample, log_gamma, product) for sample in samples])
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return attend_rows(q, k, v, log_gamma, product).transpose(1, 2)


def attend_all(
    q: Tensor, k: Tensor, v: Tensor, log_gamma: tuple[float, ...] | None, product: bool
) -> Tensor:
    """Attend among all tokens (Eq. 5); see :func:`attend_rows`."""
    height, width = q.shape[1:3]
    if log_gamma is not None and _reads_in_place(q, product):
        return _attend_in_place(q, k, v, (height, width), log_gamma)
    q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))
    if log_gamma is None:
        return softmax_attention(q, k, v).transpose(1, 2).unflatten(1, (height, width))
    dtype = torch.promote_types(q.dtype, torch.float32)
    rows = log_decay(log_gamma, width, q.device, dtype)
    columns = log_decay(log_gamma, height, q.device, dtype)

    def attend(queries: slice, k: Tensor, v: Tensor) -> Tensor:
        """From some queries, rows or a part of one row, to all tokens."""
        lines, places = place_on_map(queries, height, width)
        # The Manhattan distance is the sum of those along the two axes.
        decay = columns[:, lines, None, :, None] + rows[:, None, places, None, :]
        decay = decay.flatten(3).flatten(1, 2)
        part = q[:, :, queries]
        if product:
            return weighted_attention(part, k, v, decay.exp_())
        return softmax_attention(part, k, v, decay)

    # The decay of all pairs of tokens is too large to keep; a product also needs their scores.
    scores = len(log_gamma) * height * width * (q.shape[0] if product else 1)
    parts = token_slices(height, width, at_a_time(scores, rows))
    y = in_parts(attend, (k, v), parts, height * width, dim=2)
    return y.transpose(1, 2).unflatten(1, (height, width))
