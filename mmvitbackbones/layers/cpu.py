"""Whether a layer goes its own way on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def on_cpu(x: Tensor) -> bool:
    """Whether a tensor is on a CPU, and will be computed with in its own type."""
    return x.device.type == 'cpu' and not _autocasts()


def _autocasts() -> bool:
    try:
        return torch.is_autocast_enabled('cpu')
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()
