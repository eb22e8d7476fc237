"""One program for all sizes of images: which sizes, and layers that ask for a number of pixels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ..backbones.options import for_each_stage
from .model import OutputModel, drop_unused

STEP = 32  # pixels: what detectors pad images to multiples of
_LEAST, _MOST = 256, 2048


def least_side(backbone: Any) -> int:
    """The least height and width, in pixels, of a program for all sizes.

    The map of each stage has at least two windows then: a program for one window is another one.

    Args:
        backbone (Any): One of this package.
    """
    windows = for_each_stage(getattr(backbone, 'window_size', 1), 1)
    stride = max(STEP, 2 ** (len(backbone.stages) + 1))
    return max(_LEAST, stride * (max(windows) + 1))


def example_for(backbone: Any, size: Sequence[int] | None, batch: int = 2, seed: int = 0) -> Tensor:
    """Random images to export with.

    Args:
        backbone (Any): One of this package.
        size (Sequence[int], optional): Height and width; None: for all sizes.
        batch (int): How many; one would be taken for a constant. Defaults to 2.
        seed (int): Of the random numbers. Defaults to 0.

    Returns:
        Tensor: (batch, C, H, W).
    """
    # A size that no other number of the model equals, else it would be taken for that one.
    least = least_side(backbone)
    height, width = size or (least + 7 * STEP, least + 9 * STEP)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, backbone.in_channels, height, width, generator=generator)


def export_program(model: OutputModel, size: Sequence[int] | None) -> ExportedProgram:
    """Export a model for any number of images.

    Args:
        model (OutputModel): The model, with a backbone of this package.
        size (Sequence[int], optional): Height and width of the images; None: all multiples of 32
            from :func:`least_side` to 2048.

    Returns:
        ExportedProgram: Of ``torch.export``, with the plain bodies of all operations.

    Raises:
        ValueError: If a part of the model cannot be exported.
    """
    model = copy.deepcopy(model)
    drop_unused(model.model)
    _check_layers(model.model)
    backbone: Any = getattr(model.model, 'backbone', model.model)
    dims: dict[int, Any] = {0: Dim('batch', min=1)}
    if size is None:
        if getattr(backbone.stem, 'padding', 'end') == 'published':
            raise ValueError(
                "regional_padding='published', as published detectors were trained, pads as no "
                'formula for all sizes does: give --size, or set '
                "model.backbone.regional_padding='end' (boxes then differ a little)"
            )
        least = least_side(backbone) // STEP
        if least * STEP > _MOST:
            raise ValueError(
                f'windows of {backbone.window_size} tokens are too wide for one file for all '
                'sizes: give --size'
            )
        dims[2] = STEP * Dim('height', min=least, max=_MOST // STEP)
        dims[3] = STEP * Dim('width', min=least, max=_MOST // STEP)
        _replace_layers(model)
    with torch.no_grad(), _subsampling_by_index():
        return torch.export.export(
            model, (example_for(backbone, size),), dynamic_shapes=(dims,), strict=False
        )


def _check_layers(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if type(module).__module__.startswith('mmcv.ops'):
            raise ValueError(
                f"the model cannot be exported: {name} is mmcv's {type(module).__name__}, which "
                'neither torch.export nor ONNX knows'
            )


def _replace_layers(model: nn.Module) -> None:
    """Replace layers whose code takes the numbers of an example for those of all sizes."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(module, name, BinPool(child))
            elif type(child).__name__ == 'Upsample' and type(child).__module__.startswith('mmseg'):
                setattr(module, name, Enlarge(child))


@contextmanager
def _subsampling_by_index() -> Iterator[None]:
    """Take one pixel of a few by index, where mmdetection's FPN does it by max pooling.

    Of a pooled size torch asks whether the stride divides it, which binds an open one.
    """
    functions: Any = F
    pool = functions.max_pool2d

    def subsample(x: Tensor, kernel_size: Any, *args: Any, **kwargs: Any) -> Tensor:
        if kernel_size != 1 or set(kwargs) != {'stride'}:
            return pool(x, kernel_size, *args, **kwargs)
        for dim in (2, 3):
            count = (x.shape[dim] + kwargs['stride'] - 1) // kwargs['stride']
            places = torch.arange(count, device=x.device) * kwargs['stride']
            x = x.index_select(dim, places)
        return x

    functions.max_pool2d = subsample
    try:
        yield
    finally:
        functions.max_pool2d = pool


class BinPool(nn.Module):
    """Adaptive mean pooling, as two products with matrices that depend on the size.

    Bin i of k covers the rows from floor(i H / k) to ceil((i + 1) H / k).

    Args:
        layer (nn.AdaptiveAvgPool2d): The layer that it replaces.
    """

    def __init__(self, layer: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.bins: Any = layer.output_size

    def forward(self, x: Tensor) -> Tensor:
        """From (B, C, H, W) to (B, C, k, k)."""
        bins = (self.bins, self.bins) if isinstance(self.bins, int) else self.bins
        rows, columns = (self._means(x.shape[2 + i], bins[i], x) for i in (0, 1))
        return rows @ x @ columns.mT

    @staticmethod
    def _means(side: int, bins: int, like: Tensor) -> Tensor:
        """(bins, side): what each pixel of a line counts in the mean of each bin."""
        number = torch.arange(bins, device=like.device)[:, None]
        first = number * side // bins
        behind = (number * side + side + bins - 1) // bins
        pixels = torch.arange(side, device=like.device)
        inside = (pixels >= first) & (pixels < behind)
        return inside.to(like.dtype) / (behind - first).to(like.dtype)


class Enlarge(nn.Module):
    """mmsegmentation's ``Upsample`` by a whole factor.

    Args:
        layer (nn.Module): The layer that it replaces.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.factor = int(layer.scale_factor)
        self.mode, self.align_corners = layer.mode, layer.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """From (B, C, H, W) to (B, C, factor * H, factor * W)."""
        size = [side * self.factor for side in x.shape[2:]]
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)
