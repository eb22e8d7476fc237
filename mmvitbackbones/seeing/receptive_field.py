"""The effective receptive field: which pixels move a token, and how much (Luo et al., 2016)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.pyramid import Pyramid
from ..ops import plain
from .attention import token_strides

DIRECTIONS = 4


@dataclass(frozen=True)
class ReceptiveField:
    """How much each pixel of an image moves a token.

    Attributes:
        stage (int): The token's stage, from 0.
        token (tuple[float, float]): The token's middle, y and x, in pixels.
        strength (Tensor): (H, W), float64: the root mean square of gradients.
    """

    stage: int
    token: tuple[float, float]
    strength: Tensor

    def box(self) -> tuple[int, int, int, int]:
        """The theoretical field: the least box of all pixels that move the token at all.

        Returns:
            tuple[int, int, int, int]: Top, left, bottom and right, the last two exclusive; zeros
            where nothing does.
        """
        moved = self.strength != 0
        rows, columns = (moved.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
        if not rows:
            return 0, 0, 0, 0
        return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1

    def radius(self, share: float) -> float:
        """Radius, in pixels, of the circle round the token that holds a share of the strength."""
        height, width = self.strength.shape
        y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5 - self.token[0]
        x = torch.arange(width, dtype=torch.float64) + 0.5 - self.token[1]
        distance, order = (y**2 + x**2).sqrt().flatten().sort()
        held = self.strength.flatten()[order].cumsum(0)
        place = int(torch.searchsorted(held, share * held[-1]))
        return float(distance[min(place, len(distance) - 1)])


def receptive_field(
    backbone: Pyramid, image: Tensor, stage: int, y: float, x: float
) -> ReceptiveField:
    """Differentiate a token by the pixels of an image.

    The token is multiplied by random signs and summed, and the gradients of a few such sums are
    taken together: so no channel cancels another one. All is computed in float64, where even the
    weakest of RMT's decays leave something.

    Args:
        backbone (Pyramid): The backbone; it stays as it is.
        image (Tensor): (1, C, H, W).
        stage (int): The token's stage, from 0.
        y (float): A pixel's row, which the token is at.
        x (float): Its column.

    Returns:
        ReceptiveField: How much each pixel moves the token.
    """
    backbone = copy.deepcopy(backbone).double().eval()
    image = image.detach().double().requires_grad_()
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: tuple[Tensor, ...]) -> None:
        maps.append(output[0])

    backbone.stages[stage].register_forward_hook(keep)
    with plain(), torch.enable_grad():
        backbone(image)
        tokens = maps[0][0]
        stride = token_strides(backbone)[stage]
        row, column = (min(int(p // stride), n - 1) for p, n in zip((y, x), tokens.shape))
        token = tokens[row, column]
        generator = torch.Generator().manual_seed(0)
        strength = image.new_zeros(image.shape[2:])
        for _ in range(DIRECTIONS):
            signs = torch.randint(2, token.shape, generator=generator).to(token) * 2 - 1
            (gradient,) = torch.autograd.grad((token * signs).sum(), image, retain_graph=True)
            strength += gradient[0].square().sum(0)
    middle = ((row + 0.5) * stride, (column + 0.5) * stride)
    return ReceptiveField(stage, middle, (strength / DIRECTIONS).sqrt().cpu())
