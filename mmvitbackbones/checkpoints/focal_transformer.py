"""The published Focal Transformer checkpoints: their names, and what other windows ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.tables import resize_table
from .conversion import CLASSIFIER, Conversion, rename
from .family import Family, Hint, Source

_RENAME = (
    (r'^patch_embed\.proj\.', 'stem.conv.'),
    (r'^patch_embed\.norm\.', 'stem.norm.'),
    # Published at the end of a stage, ours at the beginning of the next.
    (r'^layers\.(\d+)\.downsample\.proj\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.conv.'),
    (r'^layers\.(\d+)\.downsample\.norm\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.norm.'),
    (r'^layers\.', 'stages.'),
    (r'\.pool_layers\.0\.', '.attn.pool.'),
    (r'\.relative_position_bias_table$', '.bias.table'),
    (r'\.relative_position_bias_table_to_neighbors$', '.surroundings.table'),
    (r'\.relative_position_bias_table_to_windows\.0$', '.coarse_bias.table'),
    (r'\.mlp\.', '.ffn.'),
)
# Buffers that the published code computes from its options.
_INDEX = re.compile(r'\.(relative_position_index(_\d+)?|valid_ind_rolled(_\d+)?|attn_mask)$')


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published Focal Transformer."""
    return any(name.endswith('.attn.relative_position_bias_table_to_windows.0') for name in state)


def convert(state: Mapping[str, Tensor]) -> Conversion:
    """Give the published tensors our names and layouts.

    Args:
        state (Mapping[str, Tensor]): The published state dict.

    Returns:
        Conversion: Tensors under our names; the classifier's tensors and the index buffers named.

    Raises:
        ValueError: If a table or pooling weight is not that of square windows.
    """
    result = Conversion()
    for name, tensor in state.items():
        if CLASSIFIER.match(name):
            result.rest[name] = tensor
        elif _INDEX.search(name):
            result.unused.append(name)
        else:
            ours = rename(name, _RENAME)
            result.tensors[ours] = _relayout(name, ours, tensor)
    return result


def resize(name: str, tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """Resize what depends on the windows; None for a tensor that does not.

    Args:
        name (str): Our name of the tensor.
        tensor (Tensor): As :func:`convert` gives it.
        shape (torch.Size): The model's shape.

    Raises:
        ValueError: If use_conv_embed is not as in the file.
    """
    if name.endswith('.conv.weight') and tensor.shape[:2] == shape[:2]:
        wider = tensor.shape[-1] > shape[-1]
        raise ValueError(
            f"the file's patch embeddings {'overlap' if wider else 'do not overlap'}: set "
            f'use_conv_embed={wider}'
        )
    if name.endswith('bias.table') and _is_square(tensor.shape[-1]) and len(tensor) == shape[0]:
        return resize_table(tensor, round(shape[1] ** 0.5), mode='bilinear')
    if name.endswith('.pool.weight') and tensor.dim() == 2 and len(set(tensor.shape)) == 1:
        return resize_pooling(tensor, shape)
    return None


def resize_pooling(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize the weights of a window's tokens so that their sum, and so the scale, is kept.

    Args:
        weight (Tensor): (s_w, s_w).
        shape (Sequence[int]): New height and width.

    Returns:
        Tensor: Weights of that shape.
    """
    grid = weight[None, None].double()
    resized = F.interpolate(grid, size=tuple(shape), mode='bilinear')[0, 0]
    resized = resized * (weight.numel() / resized.numel())
    resized = resized + (grid.sum() - resized.sum()) / resized.numel()
    return resized.to(weight.dtype)


def _relayout(published: str, name: str, tensor: Tensor) -> Tensor:
    shape = tuple(tensor.shape)
    if name.endswith('.surroundings.table'):
        fits = len(shape) == 4 and shape[0] == 1 and _is_ring(*shape[2:])
    elif name.endswith('.attn.bias.table'):
        fits = len(shape) == 2 and _is_square(shape[0]) and shape[0] % 2 == 1
    elif name.endswith('.coarse_bias.table'):
        fits = len(shape) == 2 and _is_square(shape[1])
    elif name.endswith('.pool.weight'):
        fits = len(shape) == 2 and shape[0] == 1 and _is_square(shape[1])
    else:
        return tensor
    if not fits:
        raise ValueError(f'{published}, of shape {shape}, is not that of square windows')
    if name.endswith('.surroundings.table'):
        return tensor[0]
    if name.endswith('.pool.weight'):
        return tensor.view(round(shape[1] ** 0.5), -1)
    # Published for offsets from a key to a query, ours are from a query to a key.
    return (tensor if name.endswith('.coarse_bias.table') else tensor.t()).flip(1)


def _is_square(number: int) -> bool:
    return round(number**0.5) ** 2 == number


def _is_ring(tokens: int, surroundings: int) -> bool:
    """Whether a square window of so many tokens can have so many surroundings."""
    side = round(tokens**0.5)
    widths = range(1, side // 2 + 1)
    return _is_square(tokens) and surroundings in {4 * (tokens - (side - e) ** 2) for e in widths}


_FOLDER = 'https://projects4jw.blob.core.windows.net/model/focal-transformer/imagenet1k'
_FILES = tuple(
    f'focal-{size}{stem}-is224-ws7.pth'
    for stem in ('', '-useconv')
    for size in ('tiny', 'small', 'base')
)

FAMILY = Family(
    name='Focal Transformer',
    source=Source(
        page='https://github.com/microsoft/Focal-Transformer',
        access='closed',
        state='not public since November 2023: its issues 8, 20 and 24',
        files={name: f'{_FOLDER}/{name}' for name in _FILES},
    ),
    recognise=recognise,
    convert=convert,
    resize=resize,
    # No resizing is defined for the surroundings' table, whose entries are no offsets.
    starts_new=re.compile(r'\.surroundings\.table$'),
    # What expand_sizes and focal_windows of 0 leave out.
    switched_off=re.compile(r'\.attn\.((surroundings|coarse_bias)\.table|pool\.(weight|bias))$'),
    hints=(
        Hint(
            'the file has no coarse tokens there: set focal_windows to 0 as it was',
            missing=r'\.coarse_bias\.',
        ),
    ),
)
