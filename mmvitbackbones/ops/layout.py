"""Maps (B, H, W, C) and images (B, C, H, W): one order in memory, channels last."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .backend import records_one_graph


def as_image(convolve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Convolve a map (B, H, W, C) by what takes an image (B, C, H, W)."""
    return convolve(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def channels_last(image: Tensor) -> Tensor:
    """Order an image (B, C, H, W) in memory as maps are; nothing to exporters and torch.func."""
    return image if records_one_graph() else image.contiguous(memory_format=torch.channels_last)
