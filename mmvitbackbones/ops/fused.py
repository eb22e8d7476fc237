"""torch's fused attention on a GPU: which of its kernels, and masks that take little memory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

_FOR_ANY_SHAPE = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


def without_plans(x: Tensor) -> AbstractContextManager[object]:
    """Leave out cuDNN's attention, which makes a plan for each new number of windows.

    Args:
        x (Tensor): What attention computes with.

    Returns:
        AbstractContextManager: What switches cuDNN's off, and leaves off what is already off;
        nothing where no other one is on, or for devices other than CUDA.
    """
    allowed = [one for one, is_on in zip(_FOR_ANY_SHAPE, _switched_on()) if is_on]
    return sdpa_kernel(allowed) if x.device.type == 'cuda' and allowed else nullcontext()


@torch.compiler.assume_constant_result
def _switched_on() -> tuple[bool, bool, bool]:
    """Whether each is on now; a compiled model keeps what was on when it was compiled."""
    switches = torch.backends.cuda
    return (
        switches.flash_sdp_enabled(),
        switches.mem_efficient_sdp_enabled(),
        switches.math_sdp_enabled(),
    )


def has_small_channels(q: Tensor, k: Tensor) -> bool:
    """Whether :func:`mask_as_channels` takes less memory on a GPU than a mask of each window."""
    queries, keys, dims = q.shape[2], k.shape[2], q.shape[-1] + 8
    return q.device.type == 'cuda' and queries * keys > (queries + keys) * dims


def mask_as_channels(q: Tensor, k: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Give keys a channel that says whether they may be attended to.

    Queries have a 1 there, and forbidden keys a number so low that their weight is 0. So a bias
    stays that of one window: together with a mask it would be one for each window.

    Args:
        q (Tensor): Queries, (B, heads, N, d).
        k (Tensor): Keys, (B, heads, K, d).
        valid (Tensor): Boolean, (B, 1, 1, K).

    Returns:
        tuple[Tensor, Tensor]: Both with more channels, a multiple of 8, as torch's kernel needs.
    """
    added = 8 - q.shape[-1] % 8
    ones = F.pad(q.new_ones(1), (0, added - 1))
    # A quarter: scores times a scale stay finite.
    lowest = torch.finfo(k.dtype).min / 4
    low = torch.where(valid, 0.0, lowest).to(k.dtype).mT
    low = F.pad(low, (0, added - 1))
    return (
        torch.cat([q, ones.expand(*q.shape[:-1], -1)], dim=-1),
        torch.cat([k, low.expand(-1, k.shape[1], -1, -1)], dim=-1),
    )
