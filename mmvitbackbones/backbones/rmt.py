"""RMT: self-attention that decays with the Manhattan distance (Fan et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checkpoints.rmt import FAMILY
from ..layers import PEG, DepthwiseConv, FeedForward, PatchEmbedding, PatchStem, Residual
from ..ops.layout import as_image, channels_last
from ..ops.manhattan import attend_all, attend_columns, attend_rows, log_gammas
from ..ops.rotary import rotary_embedding, rotate
from .options import (
    check_choice,
    check_flags,
    check_heads,
    check_positive,
    check_rates,
    drop_path_rates,
    each_of,
    resolve_arch,
)
from .pyramid import Pyramid, Stage

# What an arch given as a dict may leave out. Without ``attention``, all stages but the last are
# decomposed (Sec. 3.3).
_PARTS: dict[str, Any] = dict(
    attention=None,
    layer_scale=None,
    stem='conv',
    downsample='conv',
    cpe=True,
    lce=True,
    ffn_conv=True,
)
_SWIN: dict[str, Any] = dict(
    dims=(96, 192, 384, 768),
    heads=(3, 6, 12, 24),
    mlp_ratios=(4, 4, 4, 4),
    decay_range=((2, 8), (2, 8), (2, 8), (2, 8)),
    stem='patch',
    downsample='patch',
    cpe=False,
    lce=False,
    ffn_conv=False,
)
# Table 10 and, for the decay, Table 12.
ARCHS: dict[str, dict[str, Any]] = dict(
    tiny=dict(
        _PARTS,
        dims=(64, 128, 256, 512),
        heads=(4, 4, 8, 16),
        depths=(2, 2, 8, 2),
        mlp_ratios=(3, 3, 3, 3),
        decay_range=((2, 6), (2, 6), (2, 8), (2, 8)),
        # Not as Sec. 3.3 says, but as published.
        attention=('decomposed', 'decomposed', 'whole', 'whole'),
    ),
    small=dict(
        _PARTS,
        dims=(64, 128, 256, 512),
        heads=(4, 4, 8, 16),
        depths=(3, 4, 18, 4),
        mlp_ratios=(4, 4, 3, 3),
        decay_range=((2, 6), (2, 6), (2, 8), (2, 8)),
    ),
    base=dict(
        _PARTS,
        dims=(80, 160, 320, 512),
        heads=(5, 5, 10, 16),
        depths=(4, 8, 25, 8),
        mlp_ratios=(4, 4, 3, 3),
        decay_range=((2, 7), (2, 7), (2, 8), (2, 8)),
        layer_scale=(None, None, 1e-6, 1e-6),
    ),
    large=dict(
        _PARTS,
        dims=(112, 224, 448, 640),
        heads=(7, 7, 14, 20),
        depths=(4, 8, 25, 8),
        mlp_ratios=(4, 4, 3, 3),
        decay_range=((2, 8), (2, 8), (2, 8), (2, 8)),
        layer_scale=(None, None, 1e-6, 1e-6),
    ),
    swin_tiny=dict(_PARTS, **_SWIN, depths=(2, 2, 6, 2)),
    swin_small=dict(_PARTS, **_SWIN, depths=(2, 2, 18, 2)),
)


@MODELS.register_module()
class RMT(Pyramid):
    """RMT, a backbone with Manhattan self-attention.

    All tokens of a map attend to each other, or those of a row and then those of a column, and the
    attention decays with their Manhattan distance (Sec. 3.2).

    Args:
        arch (str | dict): 'tiny', 'small', 'base', 'large' (Table 10); 'swin_tiny', 'swin_small'
            (RMT-Swin-T and S, Table 6); or a dict with ``dims``, ``heads``, ``depths``,
            ``mlp_ratios`` and ``decay_range`` (a and b of Table 12), a list each with one entry a
            stage. It may also have ``attention`` (see below) and ``layer_scale`` (initial scale of
            a stage's residual branches, or None), one entry a stage; ``stem`` and ``downsample``,
            'conv' (overlapping convolutions) or 'patch' (patch embeddings as Swin's); and ``cpe``,
            ``lce`` and ``ffn_conv``, whether the depth-wise convolutions are there: before the
            attention, beside it (Eq. 7), in the feed-forward networks. A dict that names one of
            them as ``base`` may leave out what is as there. Defaults to 'tiny'.
        attention (str | Sequence[str], optional): 'decomposed' (Eq. 6) or 'whole' (Eq. 5), for all
            stages or one each; None: the arch's.
        decay (str, optional): 'bias': the logarithm of the decay is added inside the softmax, as in
            the published weights; 'product': the softmax is multiplied by the decay, as Eq. 5 and 6
            write it; None: no decay, "MaSA -> Attention" in Table 6, here of the same forms and
            with rotary embedding, of which the paper does not speak. Defaults to 'bias'.
        norm_cfg (dict, optional): Norms of the convolutions in stem and downsampling;
            ``dict(type='SyncBN')`` for training them on several GPUs, ``dict(type='GN',
            num_groups=...)`` without published weights; None: ``dict(type='BN')``.
        out_indices (Sequence[int], optional): Stages to emit; None: all.
        out_norm (str, optional): 'output' (a LayerNorm on each map that leaves the backbone),
            'inline' (the next stage also receives it), or None. Defaults to 'output'.
        drop_path_rate (float): Stochastic depth, of the last block. Defaults to 0.1, tiny's
            (Sec. 4.1: 0.15 for small, 0.4 for base, 0.5 for large).
        frozen_stages (int): -1: nothing is frozen; 0: the stem; k: the first k stages too.
            Defaults to -1.
        norm_eval (bool): Keep batch normalisation in evaluation mode, as the published detectors
            do. Defaults to False.
        with_cp (bool): Trade time for memory by computing each block again in the backward pass.
            Defaults to False.
        in_channels (int): Channels of the images. Published weights are for 3, and are summed over
            the colours for 1. Defaults to 3.
        init_cfg (dict | list[dict], optional): As in mmengine. ``dict(type='Pretrained',
            checkpoint=...)`` takes a published file as it is.

    Raises:
        ValueError: For an option's value that is not allowed.
    """

    family = FAMILY

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        attention: str | Sequence[str] | None = None,
        decay: str | None = 'bias',
        norm_cfg: dict[str, Any] | None = None,
        out_indices: Sequence[int] | None = None,
        out_norm: str | None = 'output',
        drop_path_rate: float = 0.1,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        in_channels: int = 3,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        per_stage = ('dims', 'heads', 'depths', 'mlp_ratios')
        arch = resolve_arch(arch, ARCHS, per_stage, optional=_PARTS)
        dims, heads, depths = arch['dims'], arch['heads'], arch['depths']
        _check_arch(arch)
        forms = arch['attention'] if attention is None else attention
        if forms is None:
            forms = ['decomposed'] * (len(dims) - 1) + ['whole']
        forms = each_of('attention', forms, ('decomposed', 'whole'), len(dims))
        scales = arch['layer_scale'] or [None] * len(dims)
        check_choice('decay', decay, ('bias', 'product', None))
        check_flags(with_cp=with_cp)
        check_positive(in_channels=in_channels)
        check_rates(drop_path_rate=drop_path_rate)
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        if not isinstance(norm_cfg, Mapping) or norm_cfg.get('type') not in ('BN', 'SyncBN', 'GN'):
            raise ValueError(
                "norm_cfg must be dict(type='BN'), dict(type='SyncBN') or dict(type='GN', "
                f'num_groups=...), got {norm_cfg!r}'
            )
        stem: nn.Module
        if arch['stem'] == 'conv':
            stem = ConvStem(in_channels, dims[0], norm_cfg)
        else:
            stem = PatchStem(in_channels, dims[0], 4)
        stages = []
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            blocks = [
                RMTBlock(
                    dims=dims[i],
                    heads=heads[i],
                    mlp_ratio=arch['mlp_ratios'][i],
                    decay_range=arch['decay_range'][i],
                    form=forms[i],
                    decay=decay,
                    drop_path=rate,
                    layer_scale=scales[i],
                    cpe=arch['cpe'],
                    lce=arch['lce'],
                    ffn_conv=arch['ffn_conv'],
                )
                for rate in rates
            ]
            downsample: nn.Module | None = None
            if i and arch['downsample'] == 'conv':
                downsample = Downsampling(dims[i - 1], dims[i], norm_cfg)
            elif i:
                downsample = PatchEmbedding(dims[i - 1], dims[i], 2)
            stages.append(
                RMTStage(
                    blocks, head_dims=dims[i] // heads[i], with_cp=with_cp, downsample=downsample
                )
            )
        super().__init__(
            stem,
            stages,
            dims,
            strides=[4 * 2**i for i in range(len(dims))],
            out_indices=out_indices,
            out_norm=out_norm,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            in_channels=in_channels,
            init_cfg=init_cfg,
        )


class ConvStem(nn.Sequential):
    """The convolutional stem (App. A; of the five convolutions there, four are published).

    Args:
        in_channels (int): Channels of the image.
        dims (int): Channels C after it.
        norm_cfg (dict): Norm after each convolution.
    """

    def __init__(self, in_channels: int, dims: int, norm_cfg: dict[str, Any]) -> None:
        layers, before = [], in_channels
        for after, stride in ((dims // 2, 2), (dims // 2, 1), (dims, 2), (dims, 1)):
            conv = nn.Conv2d(before, after, 3, stride, padding=1)
            layers += [conv, build_norm_layer(norm_cfg, after)[1], nn.GELU()]
            before = after
        super().__init__(*layers[:-1])

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """From an image to (B, ceil(H / 4), ceil(W / 4), C)."""
        return (super().forward(channels_last(image)).permute(0, 2, 3, 1),)


class Downsampling(nn.Module):
    """Half the resolution, other channels, by an overlapping convolution (Sec. 3.3).

    Args:
        in_dims (int): Channels before.
        dims (int): Channels after.
        norm_cfg (dict): Norm after the convolution.
    """

    def __init__(self, in_dims: int, dims: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dims, dims, 3, stride=2, padding=1)
        self.norm = build_norm_layer(norm_cfg, dims)[1]

    def forward(self, x: Tensor) -> Tensor:
        """From (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), C')."""
        return as_image(lambda image: self.norm(self.conv(image)), x)


class RMTStage(Stage):
    """Blocks that share the rotations of the rotary embedding.

    Args:
        blocks (Sequence[nn.Module]): The blocks.
        head_dims (int): Channels d of an attention head.
        with_cp (bool): See :class:`Stage`.
        downsample (nn.Module, optional): What comes before the first block.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        head_dims: int,
        with_cp: bool,
        downsample: nn.Module | None,
    ) -> None:
        super().__init__(blocks, with_cp=with_cp, downsample=downsample)
        self.head_dims = head_dims

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Run the stage on a map of tokens, (B, H, W, C)."""
        x = self.downsample(x)
        dtype = torch.promote_types(x.dtype, torch.float32)
        height, width = x.shape[1:3]
        cos, sin = rotary_embedding(height, width, self.head_dims, x.device, dtype)
        for block in self.blocks:
            x = self.run(block, x, cos, sin)
        return (x,)


class RMTBlock(nn.Module):
    """Position encoding, self-attention, feed-forward network (Fig. 3).

    Args:
        dims (int): Channels C.
        heads (int): Attention heads.
        mlp_ratio (int): Hidden channels of the feed-forward network by C.
        decay_range (tuple[float, float]): See :class:`ManhattanAttention`.
        form (str): See there.
        decay (str, optional): See there.
        drop_path (float): Stochastic depth.
        layer_scale (float, optional): Initial scale of the residual branches; None: not scaled.
        cpe (bool): Whether there is a position encoding.
        lce (bool): Whether there is a local context enhancement.
        ffn_conv (bool): Whether the feed-forward network has a convolution.
    """

    def __init__(
        self,
        dims: int,
        heads: int,
        mlp_ratio: int,
        decay_range: tuple[float, float],
        form: str,
        decay: str | None,
        drop_path: float,
        layer_scale: float | None,
        cpe: bool,
        lce: bool,
        ffn_conv: bool,
    ) -> None:
        super().__init__()
        self.cpe = PEG(dims, bias=True) if cpe else nn.Identity()
        self.norm1 = nn.LayerNorm(dims, eps=1e-6)
        self.attn = ManhattanAttention(
            dims=dims, heads=heads, decay_range=decay_range, form=form, decay=decay, lce=lce
        )
        self.residual1 = Residual(drop_path, dims, layer_scale)
        self.norm2 = nn.LayerNorm(dims, eps=1e-6)
        self.ffn = FeedForward(dims, mlp_ratio * dims, conv=ffn_conv)
        self.residual2 = Residual(drop_path, dims, layer_scale)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Run the block.

        Args:
            x (Tensor): (B, H, W, C).
            cos (Tensor): See :meth:`ManhattanAttention.forward`.
            sin (Tensor): See there.

        Returns:
            Tensor: (B, H, W, C).
        """
        x = self.cpe(x)
        x = self.residual1(x, self.attn(self.norm1(x), cos, sin))
        return self.residual2(x, self.ffn(self.norm2(x)))


class ManhattanAttention(nn.Module):
    """MaSA (Sec. 3.2): self-attention with rotary embedding and spatial decay.

    Args:
        dims (int): Channels C.
        heads (int): Attention heads.
        decay_range (tuple[float, float]): a and b of Eq. 8.
        form (str): 'decomposed' (Eq. 6: among the tokens of a row, then of a column) or 'whole'
            (Eq. 5: among all tokens).
        decay (str, optional): 'bias' or 'product', see :class:`RMT`; None: no decay.
        lce (bool): Add the local context enhancement (Eq. 7), a depth-wise 5x5 convolution.
    """

    def __init__(
        self,
        dims: int,
        heads: int,
        decay_range: tuple[float, float],
        form: str,
        decay: str | None,
        lce: bool,
    ) -> None:
        super().__init__()
        self.heads, self.form, self.decay = heads, form, decay
        self.log_gamma = None if decay is None else log_gammas(heads, decay_range)
        self.qk = nn.Linear(dims, 2 * dims)
        self.v = nn.Linear(dims, dims)
        self.lce = DepthwiseConv(dims, 5) if lce else None
        self.proj = nn.Linear(dims, dims)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend.

        Args:
            x (Tensor): (B, H, W, C).
            cos (Tensor): Cosines of the rotations, (H, W, 1, d / 2), for heads of d channels.
            sin (Tensor): Their sines.

        Returns:
            Tensor: (B, H, W, C).
        """
        q, k = rotate(self.qk(x).unflatten(-1, (2, self.heads, -1)), cos, sin)
        values = self.v(x)
        v = values.unflatten(-1, (self.heads, -1))
        log_gamma, product = self.log_gamma, self.decay == 'product'
        if self.form == 'decomposed':
            y = attend_rows(q, k, v, log_gamma, product)
            y = attend_columns(q, k, y, log_gamma, product)
        else:
            y = attend_all(q, k, v, log_gamma, product)
        y = y.flatten(3)
        if self.lce is not None:
            y = self.lce(values) + y
        return self.proj(y)


def _check_arch(arch: Mapping[str, Any]) -> None:
    dims, heads = arch['dims'], arch['heads']
    check_heads(dims, heads)
    for dim, head in zip(dims, heads):
        if dim // head % 2:
            raise ValueError(
                f'arch: {dim} channels in {head} heads are {dim // head} each; the rotary '
                'embedding needs an even number'
            )
    ranges, scales = arch['decay_range'], arch['layer_scale']
    if not _is_list(ranges, len(dims)) or not all(
        _is_list(pair, 2) and all(_is_number(n) and 2.0**-n < 1 for n in pair) for pair in ranges
    ):
        raise ValueError(
            f'arch: decay_range must be {len(dims)} pairs of positive numbers, one for each stage, '
            f'got {ranges!r}'
        )
    if scales is not None and not (
        _is_list(scales, len(dims)) and all(s is None or _is_number(s) for s in scales)
    ):
        raise ValueError(
            f'arch: layer_scale must be None or {len(dims)} numbers or None, one for each stage, '
            f'got {scales!r}'
        )
    for key in ('stem', 'downsample'):
        check_choice(f"arch['{key}']", arch[key], ('conv', 'patch'))
    check_flags(**{f"arch['{key}']": arch[key] for key in ('cpe', 'lce', 'ffn_conv')})


def _is_list(value: object, length: int) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == length


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
