"""Rotations of pairs of channels, as products of complex numbers: one pass over memory."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate_as_complex(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Compute as :func:`mmvitbackbones.ops.rotary.rotate`."""
    pairs = x.to(cos.dtype).unflatten(-1, (-1, 2))
    *others, last = pairs.stride()
    if last != 1 or any(number % 2 for number in (*others, pairs.storage_offset())):
        # The parts of a complex number lie beside each other, at an even place.
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    turned = torch.view_as_complex(pairs) * torch.complex(cos, sin)[:, :, None]
    q, k = torch.view_as_real(turned).flatten(-2).to(x.dtype).unbind(3)
    return q, k
