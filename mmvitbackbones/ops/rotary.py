"""Rotary embedding (Su et al., "RoFormer"): pairs of channels turned by a token's position.

A pair (a, b) becomes (a cos - b sin, b cos + a sin).
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import cpu
from .backend import why_plain


def rotary_embedding(
    height: int, width: int, dims: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Rotations by the position of each token of a map.

    Args:
        height (int): Height of the map in tokens.
        width (int): Width of the map in tokens.
        dims (int): Channels d of an attention head, even.
        device (torch.device): Where the result is kept.
        dtype (torch.dtype): Its precision, float32 or float64. Defaults to float32.

    Returns:
        tuple[Tensor, Tensor]: Cosines and sines, (height, width, 1, d / 2) each. The angle of pair
        j is ``10000 ** (-j / (d / 2 - 1))`` times the token's number in row-major order.
    """
    # In float64, and rounded once: processors differ in the last bits of a float32 power.
    slopes = 1 / 10000 ** torch.linspace(0, 1, dims // 2, device=device, dtype=torch.float64)
    slopes = slopes.float().double()  # as published, float32 values
    numbers = torch.arange(height * width, device=device, dtype=torch.float64)
    angles = (numbers[:, None] * slopes).unflatten(0, (height, width)).unsqueeze(2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each pair of adjacent channels.

    Args:
        x (Tensor): Queries and keys, (B, H, W, 2, heads, d).
        cos (Tensor): Of :func:`rotary_embedding`.
        sin (Tensor): Of :func:`rotary_embedding`.

    Returns:
        tuple[Tensor, Tensor]: Rotated queries and keys, (B, H, W, heads, d) each; rounded to the
        type of ``x`` after the rotation.
    """
    # Compilers fuse the plain body, and leave complex numbers to torch.
    if why_plain(x) is None and not torch.compiler.is_compiling():
        return cpu.rotate_as_complex(x, cos, sin)
    a, b = x.to(cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[:, :, None], sin[:, :, None]  # the same for queries and keys
    y = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1)
    q, k = y.flatten(-2).to(x.dtype).unbind(3)
    return q, k
