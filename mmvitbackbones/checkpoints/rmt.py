"""The published RMT checkpoints: their names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .conversion import CLASSIFIER, Conversion, rename
from .family import Family, Source

_RENAME = (
    (r'^patch_embed\.proj\.', 'stem.'),
    # Published at the end of a stage, ours at the beginning of the next.
    (
        r'^layers\.(\d+)\.downsample\.reduction\.',
        lambda m: f'stages.{int(m[1]) + 1}.downsample.conv.',
    ),
    (r'^layers\.(\d+)\.downsample\.norm\.', lambda m: f'stages.{int(m[1]) + 1}.downsample.norm.'),
    (r'^layers\.', 'stages.'),
    (r'^extra_norms\.', 'out_norms.'),
    (r'\.pos\.conv\.', '.cpe.conv.'),
    (r'\.retention_layer_norm\.', '.norm1.'),
    (r'\.retention\.lepe\.conv\.', '.attn.lce.'),
    (r'\.retention\.out_proj\.', '.attn.proj.'),
    (r'\.retention\.v_proj\.', '.attn.v.'),
    (r'\.gamma_1$', '.residual1.scale'),
    (r'\.final_layer_norm\.', '.norm2.'),
    (r'\.ffn\.dwconv\.conv\.', '.ffn.conv.'),
    (r'\.gamma_2$', '.residual2.scale'),
)
_QUERY = re.compile(r'\.retention\.q_proj\.(weight|bias)$')
# The classifier's second head, which token labels train, and buffers that hold constants.
_UNUSED = re.compile(r'^aux_head\.|\.Relpos\.(angle|decay|index|sin|cos)$')


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of a published RMT."""
    return any('.retention.q_proj.' in name for name in state)


def convert(state: Mapping[str, Tensor]) -> Conversion:
    """Give the published tensors our names and layouts.

    Args:
        state (Mapping[str, Tensor]): The published state dict.

    Returns:
        Conversion: Tensors under our names; what only a classifier needs named.

    Raises:
        ValueError: If a projection to queries comes without one to keys of the same shape.
    """
    result = Conversion()
    for name, tensor in state.items():
        if CLASSIFIER.match(name):
            result.rest[name] = tensor
        elif _UNUSED.search(name):
            result.unused.append(name)
        elif _QUERY.search(name):
            key = name.replace('.q_proj.', '.k_proj.')
            if key not in state or not tensor.dim() or tensor.shape != state[key].shape:
                raise ValueError(f'there is {name}, but no {key} of the same shape')
            ours = rename(name.replace('.retention.q_proj.', '.attn.qk.'), _RENAME)
            result.tensors[ours] = torch.cat([tensor, state[key]])
        elif '.retention.k_proj.' not in name:
            scale = re.search(r'\.gamma_[12]$', name)
            result.tensors[rename(name, _RENAME)] = tensor.flatten() if scale else tensor
    return result


def resize(name: str, tensor: Tensor, shape: torch.Size) -> None:
    """Resize nothing: no tensor depends on the size of an image."""


# Links of the authors' page, each with its password.
_SHARES = {
    'RMT-T.pth': '1uTSCuPqYRNmT4Zb4Je9BOw?pwd=vsyv',
    'RMT-S.pth': '1aQeErkmy191-zshlW2bT0g?pwd=3ay4',
    'RMT-B.pth': '1ZDNl_broia_fvvlEoTaFhA?pwd=yzge',
    'RMT-L.pth': '1v7QWgAh0TulWOTg4d94KHw?pwd=uewu',
}

FAMILY = Family(
    name='RMT',
    source=Source(
        page='https://github.com/qhfan/RMT',
        access='shared',
        state='a share on Baidu, out of reach from many countries: its issues 28, 32 and 40',
        files={name: f'https://pan.baidu.com/s/{link}' for name, link in _SHARES.items()},
        others='whole detectors and segmenters, in two more shares',
    ),
    recognise=recognise,
    convert=convert,
    resize=resize,
    # A stem of patches, where the file has that of convolutions.
    starts_new=re.compile(r'^stem\.(conv|norm)\.'),
    # What an arch's cpe, lce, ffn_conv and stem leave out.
    switched_off=re.compile(r'\.cpe\.|\.attn\.lce\.|\.ffn\.conv\.|^stem\.(?=\d)'),
)
