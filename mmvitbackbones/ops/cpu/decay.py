"""Decay without the numbers that CPUs are slow with.

Far keys get weights below the normal range of float32, which take several times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A key whose weight is less than exp(-30) of that of the query's own place does not count.
_NEGLIGIBLE = -30.0


def least_decay(q: Tensor, k: Tensor, farthest: float) -> Tensor | None:
    """Logarithm of the decay below which a key is negligible, whatever its score.

    Args:
        q (Tensor): Queries, (B, heads, N, d).
        k (Tensor): Keys, (B, heads, K, d).
        farthest (float): Logarithm of the smallest decay that occurs.

    Returns:
        Tensor | None: (heads, 1, 1); None where no key decays as far, and for float64.
    """
    if not q.numel() or q.dtype == torch.float64 or farthest > 2 * _NEGLIGIBLE:
        return None
    # No score is larger than the product of the longest query and key.
    longest = [t.detach().float().norm(dim=-1).amax((0, 2)) for t in (q, k)]
    gap = 2 * longest[0] * longest[1] * q.shape[-1] ** -0.5
    return (_NEGLIGIBLE - gap)[:, None, None]


def cut_decay(decay: Tensor, q: Tensor, k: Tensor, farthest: float) -> Tensor:
    """Let negligible keys not be there at all.

    Args:
        decay (Tensor): Logarithm of the decay, (heads, N, K).
        q (Tensor): See :func:`least_decay`.
        k (Tensor): See there.
        farthest (float): See there.

    Returns:
        Tensor: The same, with minus infinity for negligible keys.
    """
    least = least_decay(q, k, farthest)
    return decay if least is None else decay.masked_fill(decay < least, float('-inf'))
