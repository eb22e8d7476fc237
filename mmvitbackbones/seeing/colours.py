"""Feature maps as colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def principal_colours(maps: Sequence[Tensor]) -> list[np.ndarray]:
    """Colour maps by the three directions in which their tokens vary most, the same for all maps.

    Args:
        maps (Sequence[Tensor]): Maps of one stage, (C, H, W) each.

    Returns:
        list[np.ndarray]: RGB, uint8, (H, W, 3) each; each colour from its 2nd to its 98th
        percentile.
    """
    tokens = torch.cat([map_.flatten(1).T for map_ in maps]).float()
    tokens = tokens - tokens.mean(dim=0)
    _, _, directions = torch.linalg.svd(tokens, full_matrices=False)
    values = tokens.new_zeros(len(tokens), 3)
    found = min(3, len(directions))  # a map of two tokens has two
    values[:, :found] = tokens @ directions[:found].T
    # torch.quantile takes no more than 16 million values.
    some = values[:: max(1, len(values) // 100_000)]
    low, high = (torch.quantile(some, q, dim=0) for q in (0.02, 0.98))
    spread = (high - low).clamp(min=torch.finfo(torch.float32).eps)
    colours = ((values - low) / spread).clamp(0, 1).mul(255).byte().cpu().numpy()
    parts = np.split(colours, np.cumsum([map_[0].numel() for map_ in maps])[:-1])
    return [part.reshape(*map_.shape[1:], 3) for part, map_ in zip(parts, maps)]
