"""The published RegionViT checkpoints: their names, and what a change of window asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.tables import resize_table
from .conversion import CLASSIFIER, Conversion, rename
from .family import Family, Hint, Source

_RENAME = (
    (r'^layers\.(\d+)\.block\.([1-9]\d*)\.', lambda m: f'stages.{m[1]}.blocks.{int(m[2]) - 1}.'),
    (r'^patch_embed\.proj\.(\d+)\.', r'stem.local.\1.'),
    (r'^patch_embed\.proj\.(weight|bias)$', r'stem.local.0.\1'),
    (r'^cls_token\.proj\.', 'stem.regional.'),
    (r'^layers\.(\d+)\.block\.0\.proj\.0\.', r'stages.\1.downsample.norm.'),
    (r'^layers\.(\d+)\.block\.0\.proj\.2\.', r'stages.\1.downsample.conv.'),
    (r'^layers\.(\d+)\.peg\.', r'stages.\1.peg.conv.'),
    (r'^norm(\d+)\.', r'out_norms.\1.'),
    (r'\.attn\.rel_pos$', '.bias.table'),
    (r'\.mlp\.fc1\.', '.ffn.fc1.'),
    (r'\.mlp\.fc2\.', '.ffn.fc2.'),
)
_TIED = re.compile(r'(\.block\.0\.proj)_cls\.')


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published RegionViT."""
    return 'cls_token.proj.weight' in state and any('.attn.rel_pos' in name for name in state)


def convert(state: Mapping[str, Tensor]) -> Conversion:
    """Give the published tensors our names and layouts.

    Args:
        state (Mapping[str, Tensor]): The published state dict.

    Returns:
        Conversion: Tensors under our names; tables un-rolled; tied twins and the classifier's
        tensors named.

    Raises:
        ValueError: If tensors that are tied in the published model differ, or a bias table is not
            that of a square window.
    """
    result = Conversion()
    for name, tensor in state.items():
        if CLASSIFIER.match(name):
            result.rest[name] = tensor
        elif _TIED.search(name):
            twin = _TIED.sub(r'\1.', name)
            if twin not in state or not torch.equal(state[twin], tensor):
                raise ValueError(f'{name} should be equal to {twin}, which it is tied to')
            result.tied.append(name)
        else:
            result.tensors[rename(name, _RENAME)] = _relayout(name, tensor)
    return result


def resize(name: str, tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """Resize what depends on the window; None for a tensor that does not.

    Args:
        name (str): Our name of the tensor.
        tensor (Tensor): As :func:`convert` gives it.
        shape (torch.Size): The model's shape.
    """
    if name.endswith('.bias.table') and _is_table(tensor) and tensor.shape[0] == shape[0]:
        return resize_table(tensor, round(shape[1] ** 0.5))
    is_square = tensor.dim() == 4 and tensor.shape[2] == tensor.shape[3]
    if name == 'stem.regional.weight' and is_square and tensor.shape[:2] == shape[:2]:
        return resize_projection(tensor, shape[-1])
    return None


def resize_projection(weight: Tensor, patch: int) -> Tensor:
    """Resize a patch projection so that tokens of an equally resized image keep their scale.

    Args:
        weight (Tensor): (C, 3, P, P).
        patch (int): New side of the patch.

    Returns:
        Tensor: (C, 3, patch, patch); its sum over a patch is as before.
    """
    before = weight.shape[-1]
    resized = F.interpolate(
        weight, size=(patch, patch), mode='bicubic', align_corners=False, antialias=patch < before
    )
    return resized * (before / patch) ** 2


def _relayout(name: str, tensor: Tensor) -> Tensor:
    if name.endswith('.attn.rel_pos'):
        if not _is_table(tensor):
            raise ValueError(
                f'{name} should be of shape (heads, (2M - 1)^2), got {tuple(tensor.shape)}'
            )
        return unroll_table(tensor)
    if tensor.dim() == 4 and tensor.shape[0] == tensor.shape[2] == tensor.shape[3] == 1:
        return tensor.flatten()  # a 2-D LayerNorm's (1, C, 1, 1)
    return tensor


def _is_table(tensor: Tensor) -> bool:
    return tensor.dim() == 2 and tensor.shape[1] in {n * n for n in range(1, 512, 2)}


def unroll_table(table: Tensor) -> Tensor:
    """Put the published tables' offsets in rising order.

    The published model reads offset o at row (o + M // 2) mod (2M - 1), ours at o + M - 1; rows
    next to each other must be offsets next to each other before a table can be resized.

    Args:
        table (Tensor): (heads, (2M - 1)^2).

    Returns:
        Tensor: (heads, (2M - 1)^2).
    """
    side = round(table.shape[1] ** 0.5)
    window = (side + 1) // 2
    shift = window - 1 - window // 2
    grid = table.unflatten(1, (side, side))
    return grid.roll((shift, shift), dims=(1, 2)).flatten(1)


_RELEASE = 'https://github.com/IBM/RegionViT/releases/download/weights-v0.1'
# The dagger: trained and tested on larger images.
_DETECTORS = ('S', 'S+', 'S+peg', 'B', 'B+', 'B+peg', 'B+peg_dagger')
_FILES = (
    *(f'RegionViT-{size}.pth' for size in ('Ti', 'S', 'M', 'B')),
    *(
        f'{head}_{schedule}_RegionViT-{variant}.pth'
        for head in ('MaskRCNN', 'RetinaNet')
        for schedule in ('1x', '3x')
        for variant in _DETECTORS
    ),
)

FAMILY = Family(
    name='RegionViT',
    source=Source(
        page='https://github.com/IBM/RegionViT',
        access='open',
        state="no trouble is reported; the authors' table links M to the file of S",
        files={name: f'{_RELEASE}/{name}' for name in _FILES},
    ),
    recognise=recognise,
    convert=convert,
    resize=resize,
    # What an arch without regional tokens leaves out.
    switched_off=re.compile(r'^stem\.regional\.|\.norm0\.'),
    hints=(
        Hint(
            'the file has no regional tokens: set regional=False in arch',
            missing=r'^stem\.regional\.weight$',
        ),
    ),
)
