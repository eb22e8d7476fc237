"""The published ViL checkpoints: their names, and what other options than theirs ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..ops.tables import interpolate, resize_table
from .conversion import CLASSIFIER, Conversion, rename
from .family import Family, Hint, Source

if TYPE_CHECKING:
    from ..backbones.pyramid import Pyramid


def _stage(match: re.Match[str]) -> str:
    return f'stages.{int(match[1]) - 1}.'


def _embedding(match: re.Match[str]) -> str:
    return 'stem.' if match[1] == '1' else f'{_stage(match)}downsample.'


def _block(match: re.Match[str]) -> str:
    """Attention blocks and MLP blocks take turns, after the embedding."""
    place = int(match[2]) - 1
    ours = {'norm': f'norm{place % 2 + 1}', 'attn': 'attn', 'mlp': 'ffn'}[match[3]]
    return f'{_stage(match)}blocks.{place // 2}.{ours}.'


_RENAME = (
    (r'^layer(\d+)\.0\.(?=(proj|norm_embed)\.)', _embedding),
    (r'(?<=^stem\.)proj|(?<=\.downsample\.)proj', 'conv'),
    (r'norm_embed', 'norm'),
    (r'^layer(\d+)\.0\.', _stage),
    (r'\.cls_token$', '.global_tokens'),
    (r'\.cls_pos_embed$', '.global_position'),
    (r'\.x_pos_embed$', '.position.rows'),
    (r'\.y_pos_embed$', '.position.columns'),
    (r'^layer(\d+)\.(\d+)\.(norm|attn|mlp)\.', _block),
    (r'\.local_relative_position_bias_table$', '.bias.table'),
    (r'\.g2g_relative_position_bias$', '.global_bias.global_to_global'),
)
# Buffers that are computed from the options.
_UNUSED = re.compile(r'\.relative_position_index$')
_TIED = re.compile(r'\.(query|kv|proj)_global\.')
# Standard deviation of what moves the copies of global tokens, that of new ones.
_NOISE = 0.02
_OF_GLOBAL = re.compile(r'\.global_(tokens|position)$|\.global_bias\.\w+$')


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published ViL."""
    return 'layer1.0.norm_embed.weight' in state


def convert(state: Mapping[str, Tensor]) -> Conversion:
    """Give the published tensors our names and layouts.

    Args:
        state (Mapping[str, Tensor]): The published state dict.

    Returns:
        Conversion: Tensors under our names; tied twins, the classifier's tensors and the index
        buffers named.

    Raises:
        ValueError: If tensors that are tied in the published model differ, a table is not that of
            a square, or a projection is without its counterpart.
    """
    result = Conversion()
    for name, tensor in state.items():
        empty = name.endswith('.cls_pos_embed') and not tensor.numel()
        if CLASSIFIER.match(name):
            result.rest[name] = tensor
        elif _UNUSED.search(name) or empty:
            result.unused.append(name)
        elif _TIED.search(name):
            twin = _TIED.sub(r'.\1.', name)
            if twin not in state or not torch.equal(state[twin], tensor):
                raise ValueError(f'{name} should be equal to {twin}, which it is tied to')
            result.tied.append(name)
        else:
            result.tensors.update(_relayout(name, tensor, state))
    return result


def resize(name: str, tensor: Tensor, shape: torch.Size) -> Tensor | None:
    """Resize what depends on windows, image sizes and the number of global tokens.

    Args:
        name (str): Our name of the tensor.
        tensor (Tensor): As :func:`convert` gives it.
        shape (torch.Size): The model's shape.

    Returns:
        Tensor | None: None for a tensor that does not depend on them.

    Raises:
        ValueError: If the file has more global tokens than the model.
    """
    is_table = name.endswith('.bias.table') and tensor.dim() == 2 and _is_table(tensor.t())
    if is_table and len(tensor) == shape[0]:
        return resize_table(tensor, round(shape[1] ** 0.5), mode='bilinear')
    if '.position.' in name and tensor.numel() and tensor.shape[1:] == shape[1:]:
        return interpolate(tensor, 0, shape[0])
    if _OF_GLOBAL.search(name):
        return expand_global(name, tensor, shape)
    return None


def expand_global(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """Give a model more global tokens: copies of the file's in turn.

    Copies that are equal would stay so in training: those that are new are moved a little, always
    in the same way. As n copies of a key count n times, their biases are lower by
    log n; without biases there is nothing that can make up for it.

    Args:
        name (str): Our name of the tensor.
        tensor (Tensor): Global tokens, their positions or one of their biases.
        shape (torch.Size): The model's shape.

    Returns:
        Tensor: Of the model's shape.

    Raises:
        ValueError: If the file has more global tokens than the model, or is of another arch.
    """
    of_tokens = name.endswith(('.global_tokens', '.global_position'))
    counting = (0,) if of_tokens else tuple(range(1, len(shape)))  # dimensions
    before = tensor.shape[counting[0]] if tensor.dim() == len(shape) else 0
    after = shape[counting[0]]
    fits = [before if i in counting else n for i, n in enumerate(shape)]
    if not before or list(tensor.shape) != fits:
        raise ValueError(
            f'{name} is of shape {tuple(tensor.shape)}, the model wants {tuple(shape)}'
        )
    if before > after:
        raise ValueError(
            f'{name}: the file has {before} global tokens, the model {after}: set '
            'num_global_tokens to as many'
        )
    copied = torch.arange(after, device=tensor.device) % before
    for dim in counting:
        tensor = tensor.index_select(dim, copied)
    if name.endswith('.global_tokens'):
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
        tensor[before:] += _NOISE * noise[before:].to(tensor)
    elif name.endswith('_to_global'):
        tensor = tensor - torch.bincount(copied)[copied].to(tensor).log()
    return tensor


def _relayout(name: str, tensor: Tensor, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    shape, ours = tuple(tensor.shape), rename(name, _RENAME)
    if '.attn.query.' in name:
        kv = name.replace('.query.', '.kv.')
        if not shape or kv not in state or state[kv].shape != (2 * shape[0], *shape[1:]):
            raise ValueError(f'there is {name}, but no {kv} of twice its size')
        return {ours.replace('.query.', '.qkv.'): torch.cat([tensor, state[kv]])}
    if '.attn.kv.' in name:
        if name.replace('.kv.', '.query.') not in state:
            raise ValueError(f'there is {name}, but no projection to queries')
        return {}
    if name.endswith('.local_relative_position_bias_table'):
        if not _is_table(tensor):
            raise ValueError(f'{name} should be of shape ((2n - 1)^2, heads), got {shape}')
        # Published for offsets from a key to a query, ours are from a query to a key.
        return {ours: tensor.t().flip(1)}
    if name.endswith('.g2l_relative_position_bias'):
        if len(shape) != 3 or shape[0] != 2:
            raise ValueError(f'{name} should be of shape (2, heads, tokens), got {shape}')
        ours = ours.replace('.g2l_relative_position_bias', '.global_bias.')
        return {f'{ours}global_to_local': tensor[0], f'{ours}local_to_global': tensor[1]}
    if re.search(r'\.(cls_token|(cls|x|y)_pos_embed)$', name):
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(f'{name} should be of shape (1, tokens, channels), got {shape}')
        return {ours: tensor[0]}
    return {ours: tensor}


def _is_table(tensor: Tensor) -> bool:
    rows = len(tensor) if tensor.dim() == 2 else 0
    return rows % 2 == 1 and math.isqrt(rows) ** 2 == rows


def check_classifier(
    backbone: Pyramid, published: bool, tensors: Mapping[str, Tensor], source: str
) -> None:
    """Refuse a backbone that would lose its last global token, which published ones classify.

    Args:
        backbone (Pyramid): The classifier's backbone.
        published (bool): Whether the file is a published one.
        tensors (Mapping[str, Tensor]): The file's, under our names.
        source (str): The file.

    Raises:
        ValueError: If the token would be lost.
    """
    name = f'stages.{backbone.out_indices[-1]}.global_tokens'
    if name not in tensors:
        return
    if name not in backbone.state_dict() or (published and backbone.emitted == 0):
        raise ValueError(
            f'{source} has a global token in the last stage, which its classifier needs: set '
            "num_global_tokens=1 and outputs='all' in the backbone, as it was trained"
        )


_FOLDER = 'https://penzhanwu2.blob.core.windows.net/imagenet/msvit'
# The authors' files all have one name. RPB: with relative biases, which detectors start from; M and
# B of them are of ImageNet-22K, as the authors' detectors started.
_FOLDERS = {
    'ViL-T.pth': 'visionlongformer/msvit_tiny_longformersw_1191_train',
    'ViL-S.pth': 'visionlongformer/msvit_small_longformersw_1281_train',
    'ViL-MD.pth': 'visionlongformer/deepmedium_14161_lr8e-4',
    'ViL-MW.pth': 'visionlongformer/wide_medium_1281',
    'ViL-T-RPB.pth': 'visionlongformer/longtiny1191_ape0_exact0_nglo1_mode1_swith075',
    'ViL-S-RPB.pth': 'visionlongformer/small1281_relative',
    'ViL-M-RPB.pth': 'IN22kpretrained/deepmedium_relative',
    'ViL-B-RPB.pth': 'IN22kpretrained/deepbase_relative',
}

FAMILY = Family(
    name='ViL',
    source=Source(
        page='https://github.com/microsoft/vision-longformer',
        access='closed',
        state='out of reach, last reported in April 2025: its issue 13',
        files={name: f'{_FOLDER}/{folder}/model_best.pth' for name, folder in _FOLDERS.items()},
        others='other classifiers, and detectors in a format that this package does not read',
    ),
    recognise=recognise,
    convert=convert,
    resize=resize,
    # Where the file has no global tokens in a stage.
    starts_new=_OF_GLOBAL,
    # Where the model has none; and in a stage's last block, where what they learn is never read.
    switched_off=_OF_GLOBAL,
    hints=(
        Hint(
            "the file has no absolute positions: set position='rpb'",
            missing=r'\.position\.',
            unexpected=r'\.bias\.table',
        ),
        Hint("the file has absolute positions: set position='ape'", unexpected=r'\.position\.'),
    ),
    check_classifier=check_classifier,
)
