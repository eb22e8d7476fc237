"""RegionViT: regional-to-local attention (Chen et al., ICLR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checkpoints.regionvit import FAMILY
from ..layers import PEG, FeedForward, RelativePositionBias, Residual, SelfAttention
from ..ops.backend import known
from ..ops.layout import as_image, channels_last
from ..ops.windows import Neighbourhood, at_most, grid, merge, pad_to, pad_to_multiple, partition
from .options import (
    check_choice,
    check_flags,
    check_heads,
    check_positive,
    check_rates,
    drop_path_rates,
    for_each_stage,
    resolve_arch,
)
from .pyramid import Pyramid, Stage

PATCH = 4  # pixels per local token, along each side


def _arch(stem: str, dim: int, heads: int, depths: Sequence[int], window: int) -> dict[str, Any]:
    widths = [2**i for i in range(4)]
    return dict(
        stem=stem,
        dims=[dim * w for w in widths],
        heads=[heads * w for w in widths],
        depths=list(depths),
        window_size=window,
    )


# Table 2; the names with a plus in the paper have windows of 14.
ARCHS = {
    f'{name}{suffix}': _arch(*sizes, window)
    for name, sizes in dict(
        tiny=('3-conv', 64, 2, (2, 2, 8, 2)),
        small=('3-conv', 96, 3, (2, 2, 8, 2)),
        medium=('1-conv', 96, 3, (2, 2, 14, 2)),
        base=('1-conv', 128, 4, (2, 2, 14, 2)),
    ).items()
    for suffix, window in (('', 7), ('_plus', 14))
}


@MODELS.register_module()
class RegionViT(Pyramid):
    """RegionViT, emitting the local tokens of each stage.

    Regional tokens, one for each M x M window of local tokens, exchange information among
    themselves; then each exchanges it with its own window (Sec. 3, Eq. 2 and 3).

    Args:
        arch (str | dict): 'tiny', 'small', 'medium', 'base' (Table 2), each also with '_plus'
            (windows of 14 instead of 7); or a dict with ``stem`` ('3-conv' or '1-conv'), ``dims``,
            ``heads``, ``depths`` (a list each, one entry a stage), ``window_size``, and perhaps
            ``regional`` (False: no regional tokens, windows attend to themselves only; Tables 8
            and A5). A dict that names one of them as ``base`` may leave out what is as there.
            Defaults to 'small'.
        window_size (int | Sequence[int], optional): Side M of a window in tokens, the same for
            all stages; None: the arch's.
        peg (bool): A positional encoding generator after the first encoder of each stage
            ('w/ PEG' in Table 5). Defaults to False.
        outputs (str): 'local', the maps of local tokens, or 'regional', those of the regional
            tokens, which the classifier takes. Defaults to 'local'.
        regional_padding (str): Where the regional grid's patches go beyond an image that 4M does
            not divide: 'end', at the bottom and right, as much as is needed; 'published', as the
            published detectors were trained: half of it at the top and left, and where one side
            needs it both get it, a whole patch if they are divisible. Defaults to 'end'.
        out_indices (Sequence[int], optional): Stages to emit; None: all.
        out_norm (str, optional): 'inline' (the published detectors: the next stage also receives
            the normalised tokens), 'output', or None. Defaults to 'inline'.
        drop_path_rate (float): Stochastic depth, of the last encoder. Defaults to 0.1.
        drop_rate (float): Dropout after projections and in feed-forward networks. Defaults to 0.
        attn_drop_rate (float): Dropout of the attention weights. Defaults to 0.
        frozen_stages (int): -1: nothing is frozen; 0: the stem; k: the first k stages too.
            Defaults to -1.
        norm_eval (bool): Keep batch normalisation in evaluation mode; RegionViT has none of its
            own. Defaults to False.
        with_cp (bool): Trade time for memory by computing each encoder again in the backward
            pass. Defaults to False.
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
        arch: str | dict[str, Any] = 'small',
        window_size: int | Sequence[int] | None = None,
        peg: bool = False,
        outputs: str = 'local',
        regional_padding: str = 'end',
        out_indices: Sequence[int] | None = None,
        out_norm: str | None = 'inline',
        drop_path_rate: float = 0.1,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        in_channels: int = 3,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        arch = resolve_arch(
            arch, ARCHS, per_stage=('dims', 'heads', 'depths'), optional=dict(regional=True)
        )
        dims, heads, depths = arch['dims'], arch['heads'], arch['depths']
        _check_widths(arch['stem'], dims, heads)
        window = _one_window(arch['window_size'] if window_size is None else window_size, dims)
        regional = arch['regional']
        check_flags(peg=peg, with_cp=with_cp, **{"arch['regional']": regional})
        check_choice('outputs', outputs, ('local', 'regional'))
        check_choice('regional_padding', regional_padding, ('end', 'published'))
        if regional_padding == 'published' and not regional:
            raise ValueError(
                "regional_padding='published' needs an arch with regional tokens: leave it out"
            )
        if outputs == 'regional' and (not regional or out_norm == 'inline'):
            raise ValueError(
                "outputs='regional' needs an arch with regional tokens, and an out_norm other than "
                "'inline', which is on the local tokens"
            )
        check_positive(in_channels=in_channels)
        check_rates(
            drop_path_rate=drop_path_rate, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate
        )
        stages = [
            R2LStage(
                in_dims=dims[i - 1] if i else None,
                dims=dims[i],
                heads=heads[i],
                window=window,
                regional=regional,
                peg=peg,
                drop_path=rates,
                drop=drop_rate,
                attn_drop=attn_drop_rate,
                with_cp=with_cp,
            )
            for i, rates in enumerate(drop_path_rates(drop_path_rate, depths))
        ]
        stem: LocalTokenization
        if regional:
            stem = Tokenization(in_channels, arch['stem'], dims[0], window, regional_padding)
        else:
            stem = LocalTokenization(in_channels, arch['stem'], dims[0])
        stride = PATCH if outputs == 'local' else PATCH * window
        super().__init__(
            stem,
            stages,
            dims,
            strides=[stride * 2**i for i in range(len(dims))],
            out_indices=out_indices,
            out_norm=out_norm,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            in_channels=in_channels,
            emitted=('local', 'regional').index(outputs),
            init_cfg=init_cfg,
        )
        self.window_size = window


class LocalTokenization(nn.Module):
    """Local tokens of an image (Sec. 3, Table 2).

    Args:
        in_channels (int): Channels of the image.
        stem (str): '3-conv' or '1-conv', how they are made.
        dims (int): Channels C.
    """

    def __init__(self, in_channels: int, stem: str, dims: int) -> None:
        super().__init__()
        if stem == '1-conv':
            self.local = nn.Sequential(nn.Conv2d(in_channels, dims, 8, stride=PATCH, padding=3))
        else:
            self.local = nn.Sequential(
                nn.Conv2d(in_channels, dims // 4, 3, stride=2, padding=1),
                ChannelNorm(dims // 4),
                nn.GELU(),
                nn.Conv2d(dims // 4, dims // 2, 3, stride=2, padding=1),
                ChannelNorm(dims // 2),
                nn.GELU(),
                nn.Conv2d(dims // 2, dims, 3, padding=1),
            )

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """From an image to (B, ceil(H / 4), ceil(W / 4), C)."""
        x = channels_last(image)
        if len(self.local) == 1:
            # The 8 x 8 kernel would leave out the last row of a height of 1 mod 4.
            x = pad_to_multiple(x.permute(0, 2, 3, 1), PATCH, PATCH).permute(0, 3, 1, 2)
        return (self.local(x).permute(0, 2, 3, 1),)


class Tokenization(LocalTokenization):
    """Local and regional tokens of an image (Sec. 3, Table 2).

    Args:
        in_channels (int): Channels of the image.
        stem (str): See :class:`LocalTokenization`.
        dims (int): Channels C.
        window (int): Side M of a window: a regional token sees 4M x 4M pixels.
        padding (str): 'end' or 'published', see :class:`RegionViT`.
    """

    def __init__(
        self, in_channels: int, stem: str, dims: int, window: int, padding: str = 'end'
    ) -> None:
        super().__init__(in_channels, stem, dims)
        self.patch = PATCH * window
        self.padding = padding
        self.regional = nn.Conv2d(in_channels, dims, self.patch, stride=self.patch)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Tokenize.

        Args:
            image (Tensor): (B, in_channels, H, W).

        Returns:
            tuple[Tensor, Tensor]: Local tokens (B, ceil(H / 4), ceil(W / 4), C), and regional
            tokens (B, ceil(H / 4M), ceil(W / 4M), C); with published padding up to a row and a
            column more of them.
        """
        pixels = channels_last(image).permute(0, 2, 3, 1)
        if self.padding == 'published':
            padded = self._pad_as_published(pixels)
        else:
            padded = pad_to_multiple(pixels, self.patch, self.patch)
        return *super().forward(image), as_image(self.regional, padded)

    def _pad_as_published(self, pixels: Tensor) -> Tensor:
        """Pad (B, H, W, channels) on all sides, unless both sides are divisible."""
        sides = pixels.shape[1:3]
        if all(known(side % self.patch == 0) for side in sides):
            return pixels
        if any(isinstance(side, torch.SymInt) for side in sides):
            raise ValueError(
                "regional_padding='published' pads as no formula for all sizes does: export for "
                "one size, or set regional_padding='end'"
            )
        rows, columns = (self.patch - side % self.patch for side in sides)
        top, left = rows // 2, columns // 2
        return F.pad(pixels, (0, 0, left, columns - left, top, rows - top))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a (B, C, H, W) map."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; (B, C, H, W) in and out, channels last in memory."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class R2LStage(Stage):
    """Downsampling, then R2L transformer encoders.

    Args:
        in_dims (int, optional): Channels of the previous stage; None: do not downsample.
        dims (int): Channels C.
        heads (int): Attention heads.
        window (int): Side M of a window.
        regional (bool): Whether there are regional tokens.
        peg (bool): Whether a PEG follows the first encoder.
        drop_path (Sequence[float]): Rates, one for each encoder.
        drop (float): Dropout of projections.
        attn_drop (float): Dropout of attention weights.
        with_cp (bool): See :class:`Stage`.
    """

    def __init__(
        self,
        in_dims: int | None,
        dims: int,
        heads: int,
        window: int,
        regional: bool,
        peg: bool,
        drop_path: Sequence[float],
        drop: float,
        attn_drop: float,
        with_cp: bool,
    ) -> None:
        encoder = R2LEncoder if regional else Encoder
        super().__init__(
            [encoder(dims, heads, window, rate, drop, attn_drop) for rate in drop_path],
            with_cp=with_cp,
            downsample=Downsampling(in_dims, dims) if in_dims else None,
            peg=PEG(dims) if peg else None,
        )
        self.window = window

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        """Run the stage.

        Args:
            maps (Tensor): Local tokens, (B, H, W, C), and regional tokens, (B, rows, columns, C),
                where there are any.

        Returns:
            tuple[Tensor, ...]: The same, at half the size and other channels if downsampled.
        """
        maps = tuple(self.downsample(x) for x in maps)
        height, width = size = maps[0].shape[1:3]
        # What a single window would have beyond the map is not computed.
        window = at_most(self.window, height), at_most(self.window, width)
        tokens = join(*maps, window=window)
        valid, own = None, Neighbourhood(window)
        rows, columns = grid(size, window)
        below, beside = tokens.shape[1] - rows, tokens.shape[2] - columns
        if not (known(below == 0) and known(beside == 0) and own.sees_only_the_map(size)):
            valid = own.on_map(size, tokens.device).unflatten(0, (rows, columns))
            # Regions beyond all local tokens have none of their own.
            valid = F.pad(valid, (0, 0, 0, beside, 0, below)).flatten(0, 1)
            valid = F.pad(valid, (len(maps) - 1, 0), value=True)
        for i, block in enumerate(self.blocks):
            tokens = self.run(block, tokens, window, valid)
            if i == 0 and self.peg is not None:
                maps = split(tokens, window, size)
                tokens = join(*(self.peg(x) for x in maps), window=window)
        return split(tokens, window, size)


def join(local: Tensor, *regional: Tensor, window: Sequence[int]) -> Tensor:
    """Cut local tokens into windows, and put its regional token, if there are any, before each.

    Args:
        local (Tensor): (B, H, W, C).
        regional (Tensor): (B, rows, columns, C).
        window (Sequence[int]): Height and width (h, w) of a window.

    Returns:
        Tensor: (B, rows, columns, R + h * w, C) with R of 0 or 1, zeros where a window reaches
        beyond the map.
    """
    for x in regional:
        # With published padding there are more regions than windows.
        local = pad_to(local, x.shape[1] * window[0], x.shape[2] * window[1])
    windows = partition(local, window)
    return torch.cat([*(x.unsqueeze(3) for x in regional), windows], dim=3)


def split(tokens: Tensor, window: Sequence[int], size: Sequence[int]) -> tuple[Tensor, ...]:
    """Undo :func:`join`: the local map of the given size, and the regional tokens."""
    count = window[0] * window[1]
    local = merge(tokens[:, :, :, -count:], window, size)
    return local, *tokens[:, :, :, :-count].unbind(3)


class Downsampling(nn.Module):
    """Half the resolution of a token grid, other channels (Sec. 3, Downsampling).

    Both grids go through the same weights.

    Args:
        in_dims (int): Channels before.
        dims (int): Channels after, a multiple of those before.
    """

    def __init__(self, in_dims: int, dims: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dims)
        self.conv = nn.Conv2d(in_dims, dims, 3, stride=2, padding=1, groups=in_dims)

    def forward(self, x: Tensor) -> Tensor:
        """From (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), C')."""
        return as_image(self.conv, F.gelu(self.norm(x)))


class Encoder(nn.Module):
    """Self-attention within each window, then feed-forward.

    Args:
        dims (int): Channels C.
        heads (int): Attention heads.
        window (int): Side M of a window.
        drop_path (float): Stochastic depth.
        drop (float): Dropout of projections.
        attn_drop (float): Dropout of attention weights.
    """

    def __init__(
        self, dims: int, heads: int, window: int, drop_path: float, drop: float, attn_drop: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims, eps=1e-6)
        self.norm2 = nn.LayerNorm(dims, eps=1e-6)
        self.attn = SelfAttention(dims, heads, attn_drop, drop)
        self.bias = RelativePositionBias(window, heads)
        self.residual = Residual(drop_path)
        self.ffn = FeedForward(dims, 4 * dims, drop)

    def forward(self, tokens: Tensor, window: tuple[int, int], valid: Tensor | None) -> Tensor:
        """Run the encoder.

        Args:
            tokens (Tensor): The tokens of each window, (B, rows, columns, R + h * w, C): R others,
                if there are any, then the local ones.
            window (tuple[int, int]): Height and width (h, w) of the windows, at most M.
            valid (Tensor, optional): Boolean, (rows * columns, R + h * w), True for the tokens on
                the map; None: all are.

        Returns:
            Tensor: As ``tokens``.
        """
        bias = self.bias()
        if window != (self.bias.window,) * 2:
            height, width = window
            bias = bias.unflatten(1, (self.bias.window, -1)).unflatten(3, (self.bias.window, -1))
            bias = bias[:, :height, :width, :height, :width].flatten(3).flatten(1, 2)
        # Eq. 3 gives a bias to pairs of local tokens only.
        others = tokens.shape[3] - bias.shape[1]
        bias = F.pad(bias, (others, 0, others, 0))
        y = self.attn(self.norm1(tokens).flatten(0, 2), bias, valid).view_as(tokens)
        y = self.residual(tokens, y)
        return self.residual(y, self.ffn(self.norm2(y)))


class R2LEncoder(Encoder):
    """R2L transformer encoder (Eq. 2): regional, then local self-attention, then feed-forward.

    Both attentions share their weights, but for the normalisation before them.

    Args:
        dims (int): Channels C.
        heads (int): Attention heads.
        window (int): Side M of a window.
        drop_path (float): Stochastic depth.
        drop (float): Dropout of projections.
        attn_drop (float): Dropout of attention weights.
    """

    def __init__(
        self, dims: int, heads: int, window: int, drop_path: float, drop: float, attn_drop: float
    ) -> None:
        super().__init__(dims, heads, window, drop_path, drop, attn_drop)
        self.norm0 = nn.LayerNorm(dims, eps=1e-6)

    def forward(self, tokens: Tensor, window: tuple[int, int], valid: Tensor | None) -> Tensor:
        """Run the encoder; see :meth:`Encoder.forward`, of one regional token a window."""
        regional = tokens[:, :, :, 0]
        y = self.attn(self.norm0(regional).flatten(1, 2)).view_as(regional)
        regional = self.residual(regional, y)
        tokens = torch.cat([regional.unsqueeze(3), tokens[:, :, :, 1:]], dim=3)
        return super().forward(tokens, window, valid)


def _check_widths(stem: str, dims: Sequence[int], heads: Sequence[int]) -> None:
    check_choice("arch['stem']", stem, ('3-conv', '1-conv'))
    check_heads(dims, heads)
    for before, after in zip(dims, dims[1:]):
        if after % before:
            raise ValueError(
                f'arch: {before} channels do not divide the {after} of the next stage, as the '
                'depth-wise downsampling needs'
            )
    if stem == '3-conv' and dims[0] % 4:
        raise ValueError(f"arch: '3-conv' needs a first of dims that 4 divides, got {dims[0]}")


def _one_window(window_size: int | Sequence[int], dims: Sequence[int]) -> int:
    windows = for_each_stage(window_size, len(dims))
    if not all(type(window) is int and window > 0 for window in windows):
        raise ValueError(f'window_size must be a positive integer, got {window_size!r}')
    if len(windows) != len(dims) or len(set(windows)) != 1:
        raise ValueError(
            f'window_size must be one integer, or {len(dims)} equal ones, got {window_size}: the '
            'grids of local and regional tokens halve together, so all stages share one window'
        )
    return windows[0]
