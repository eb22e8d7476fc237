"""Focal Transformer: fine attention nearby, coarse attention far away (Yang et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model.weight_init import trunc_normal_
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checkpoints.focal_transformer import FAMILY
from ..layers import (
    PEG,
    FeedForward,
    PatchEmbedding,
    PatchStem,
    RelativePositionBias,
    Residual,
    SelfAttention,
)
from ..ops.backend import cached
from ..ops.windows import Neighbourhood, at_most, crop, pad_to_multiple
from .options import (
    check_flags,
    check_heads,
    check_positive,
    check_rates,
    drop_path_rates,
    one_each,
    resolve_arch,
)
from .pyramid import Pyramid, Stage


def _arch(dim: int, heads: int, depths: Sequence[int]) -> dict[str, Any]:
    widths = [2**i for i in range(4)]
    return dict(
        dims=[dim * w for w in widths], heads=[heads * w for w in widths], depths=list(depths)
    )


# Table 1; large: Sec. 4.1.
ARCHS = dict(
    tiny=_arch(96, 3, (2, 2, 6, 2)),
    small=_arch(96, 3, (2, 2, 18, 2)),
    base=_arch(128, 4, (2, 2, 18, 2)),
    large=_arch(196, 4, (2, 2, 18, 2)),
)


@MODELS.register_module()
class FocalTransformer(Pyramid):
    """Focal Transformer.

    The tokens of a window attend to themselves and their close surroundings one by one, and to
    what lies farther away window by window (Sec. 3.2).

    Args:
        arch (str | dict): 'tiny', 'small', 'base' (Table 1), 'large' (Sec. 4.1); or a dict with
            ``dims``, ``heads`` and ``depths``, a list each with one entry a stage. A dict that
            names one of them as ``base`` may leave out what is as there. Defaults to 'tiny'.
        window_size (int | Sequence[int]): Side s_p of a window in tokens, which is also the side
            s_w of what is pooled to one coarse token; one for all stages, or one each. Defaults
            to 7.
        expand_sizes (int | Sequence[int]): Tokens on each side of a window that it sees one by one;
            at most half a window; 0: its own tokens only. Defaults to (3, 3, 3, 0).
        focal_windows (int | Sequence[int]): Side s_r of the square of windows round a window that
            it sees as one coarse token each; 0: no coarse tokens. The paper takes (7, 5, 3, 1) for
            classification, (15, 13, 9, 7) for detection (Sec. 4.2). Defaults to (7, 5, 3, 1).
        use_conv_embed (bool): Overlapping patch embeddings, 7x7 and 3x3, instead of 4x4 and 2x2.
            Defaults to False.
        peg (bool): A positional encoding generator after the first block of each stage. Defaults
            to False.
        out_indices (Sequence[int], optional): Stages to emit; None: all.
        out_norm (str, optional): 'output' (a LayerNorm on each map that leaves the backbone),
            'inline' (the next stage also receives it), or None. Defaults to 'output'.
        drop_path_rate (float): Stochastic depth, of the last block. Defaults to 0.2, tiny's
            (Sec. 4.2: 0.3 for small, 0.5 for base).
        drop_rate (float): Dropout after projections and in feed-forward networks. Defaults to 0.
        attn_drop_rate (float): Dropout of the attention weights. Defaults to 0.
        frozen_stages (int): -1: nothing is frozen; 0: the stem; k: the first k stages too.
            Defaults to -1.
        norm_eval (bool): Keep batch normalisation in evaluation mode; there is none of its own.
            Defaults to False.
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
        window_size: int | Sequence[int] = 7,
        expand_sizes: int | Sequence[int] = (3, 3, 3, 0),
        focal_windows: int | Sequence[int] = (7, 5, 3, 1),
        use_conv_embed: bool = False,
        peg: bool = False,
        out_indices: Sequence[int] | None = None,
        out_norm: str | None = 'output',
        drop_path_rate: float = 0.2,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        in_channels: int = 3,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        arch = resolve_arch(arch, ARCHS, per_stage=('dims', 'heads', 'depths'))
        dims, heads, depths = arch['dims'], arch['heads'], arch['depths']
        check_heads(dims, heads)
        windows = one_each('window_size', window_size, len(dims), least=1)
        expands = one_each('expand_sizes', expand_sizes, len(dims))
        focals = one_each('focal_windows', focal_windows, len(dims))
        for i, (window, expand) in enumerate(zip(windows, expands)):
            if 2 * expand > window:
                raise ValueError(
                    f'expand_sizes: {expand} on each side do not fit in window_size {window} of '
                    f'stage {i}: at most {window // 2}'
                )
        check_flags(use_conv_embed=use_conv_embed, peg=peg, with_cp=with_cp)
        check_positive(in_channels=in_channels)
        check_rates(
            drop_path_rate=drop_path_rate, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate
        )
        # Stride, kernel, padding.
        stem, downsampling = ((4, 7, 2), (2, 3, 1)) if use_conv_embed else ((4, 4, 0), (2, 2, 0))
        stages = []
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            blocks = [
                FocalBlock(
                    dims=dims[i],
                    heads=heads[i],
                    window=windows[i],
                    expand=expands[i],
                    focal_window=focals[i],
                    drop_path=rate,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                )
                for rate in rates
            ]
            downsample = PatchEmbedding(dims[i - 1], dims[i], *downsampling) if i else None
            stages.append(
                Stage(
                    blocks,
                    with_cp=with_cp,
                    downsample=downsample,
                    peg=PEG(dims[i]) if peg else None,
                )
            )
        super().__init__(
            PatchStem(in_channels, dims[0], *stem),
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
        self.window_size = windows


class FocalBlock(nn.Module):
    """Focal attention, then a feed-forward network.

    Args:
        dims (int): Channels C.
        heads (int): Attention heads.
        window (int): Side s_p of a window.
        expand (int): Tokens on each side of it that are seen one by one.
        focal_window (int): Side s_r of the square of coarse tokens.
        drop_path (float): Stochastic depth.
        drop (float): Dropout of projections.
        attn_drop (float): Dropout of attention weights.
    """

    def __init__(
        self,
        dims: int,
        heads: int,
        window: int,
        expand: int,
        focal_window: int,
        drop_path: float,
        drop: float,
        attn_drop: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims)
        self.attn = FocalAttention(
            dims=dims,
            heads=heads,
            window=window,
            expand=expand,
            focal_window=focal_window,
            attn_drop=attn_drop,
            proj_drop=drop,
        )
        self.residual = Residual(drop_path)
        self.norm2 = nn.LayerNorm(dims)
        self.ffn = FeedForward(dims, 4 * dims, drop)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block; (B, H, W, C) in and out."""
        x = self.residual(x, self.attn(self.norm1(x)))
        return self.residual(x, self.ffn(self.norm2(x)))


class FocalAttention(SelfAttention):
    """Window-wise focal attention (Sec. 3.2.1).

    Args:
        dims (int): Channels C.
        heads (int): Attention heads.
        window (int): Side s_p of a window.
        expand (int): Tokens on each side of it that are seen one by one.
        focal_window (int): Side s_r of the square of coarse tokens; 0: none.
        attn_drop (float): Dropout of the attention weights.
        proj_drop (float): Dropout of the output.
    """

    def __init__(
        self,
        dims: int,
        heads: int,
        window: int,
        expand: int,
        focal_window: int,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(dims, heads, attn_drop, proj_drop)
        self.window, self.focal_window = window, focal_window
        sides = (expand, expand)
        # As published: beyond the map's border a window sees the opposite one.
        self.fine = Neighbourhood((window, window), sides, sides, wraps=True)
        self.bias = RelativePositionBias(window, heads)
        self.surroundings = SurroundingsBias(window, expand, heads) if expand else None
        self.pool = SubWindowPooling(window) if focal_window else None
        self.coarse_bias = (
            RelativePositionBias(window, heads, focal_window) if focal_window else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Attend; (B, H, W, C) in and out."""
        size = x.shape[1:3]
        # Padded tokens are zero, but their keys are not: they carry the projection's bias.
        x = pad_to_multiple(x, self.window, self.window)
        maps, seen = [x], [self.fine]
        bias = self.bias()
        if self.surroundings is not None:
            bias = self.surroundings(bias)
        if self.pool is not None and self.coarse_bias is not None:
            pooled = self.pool(x)
            coarse, rows, columns = coarse_region(self.focal_window, pooled.shape[1:3])
            maps, seen = [x, pooled], [self.fine, coarse]
            far = self.coarse_bias().unflatten(2, (self.focal_window, self.focal_window))
            bias = torch.cat([bias, far[:, :, rows, columns].flatten(2)], dim=2)
        return crop(self.attend(maps, seen, bias), size)


class SubWindowPooling(nn.Module):
    """One coarse token for each window, by weights that all channels share (Eq. 1).

    Args:
        window (int): Side s_w of a window.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((window, window), 1 / window**2))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """From (B, rows * s_w, columns * s_w, C) to (B, rows, columns, C)."""
        height, width = self.weight.shape
        x = x.unflatten(2, (-1, width)).unflatten(1, (-1, height))
        return torch.einsum('brycxd,yx->brcd', x, self.weight) + self.bias


class SurroundingsBias(nn.Module):
    """A learned bias for each head, each token of a window and each one of its surroundings.

    The published table is laid out as the surroundings were gathered: the map is rolled by e
    tokens towards each of its four corners, and of each rolled window the tokens outside the
    original one are kept. With windows wider than 2e, the middle of each side of the ring comes
    twice, under two biases; as a key that counts twice it adds up to one key with the logarithm of
    the sum of the biases' exponentials.

    Args:
        window (int): Side s_p of a window.
        expand (int): Width e of the ring, at most half a window.
        heads (int): Attention heads.
    """

    def __init__(self, window: int, expand: int, heads: int) -> None:
        super().__init__()
        self.window, self.expand = window, expand
        count = 4 * (window**2 - (window - expand) ** 2)
        self.table = nn.Parameter(torch.zeros(heads, window**2, count))
        trunc_normal_(self.table, std=0.02)

    def forward(self, own: Tensor) -> Tensor:
        """Widen the bias of a window's own tokens by that of its surroundings.

        Args:
            own (Tensor): (heads, s_p ** 2, s_p ** 2).

        Returns:
            Tensor: (heads, s_p ** 2, (s_p + 2e) ** 2), keys in row-major order.
        """
        once, twice, again = surroundings_index(self.window, self.expand, own.device)
        listed = torch.cat([own, self.table], dim=2)
        bias = listed.index_select(2, once)
        merged = torch.logaddexp(bias[:, :, twice], listed[:, :, again])
        return bias.index_copy(2, twice, merged)


@cached
def surroundings_index(
    window: int, expand: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the keys of a widened window stand in the published list of keys.

    The list holds a window's own tokens, then those of the four rolled windows that lie outside,
    in the order of rolls (-e, -e), (-e, e), (e, -e), (e, e).

    Args:
        window (int): Side s_p of a window.
        expand (int): Width e of the ring.
        device (torch.device): Where the result is kept.

    Returns:
        tuple[Tensor, Tensor, Tensor]: The first place of each of the (s_p + 2e) ** 2 keys; the
        keys that are listed twice; their second places.
    """
    tokens = [(y, x) for y in range(window) for x in range(window)]
    own, listed = set(tokens), list(tokens)
    for dy, dx in ((expand, expand), (expand, -expand), (-expand, expand), (-expand, -expand)):
        rolled = [(y + dy, x + dx) for y, x in tokens]
        listed += [token for token in rolled if token not in own]
    places: dict[tuple[int, int], list[int]] = {}
    for place, token in enumerate(listed):
        places.setdefault(token, []).append(place)
    side = range(-expand, window + expand)
    keys = [places[y, x] for y in side for x in side]
    twice = [i for i, key in enumerate(keys) if len(key) == 2]
    first, second = [key[0] for key in keys], [keys[i][1] for i in twice]

    def index(numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    return index(first), index(twice), index(second)


def coarse_region(focal_window: int, grid: Sequence[int]) -> tuple[Neighbourhood, slice, slice]:
    """The coarse tokens that windows of a grid see, without those that none of them can see.

    Args:
        focal_window (int): Side s_r of the square of coarse tokens, offsets -(s_r // 2) onwards.
        grid (Sequence[int]): Windows per column and per row.

    Returns:
        tuple[Neighbourhood, slice, slice]: The tokens, and the rows and columns of the square that
        are left.
    """
    before, after = focal_window // 2, focal_window - 1 - focal_window // 2
    rows, columns = ((at_most(before, n - 1), at_most(after, n - 1)) for n in grid)
    left = [slice(before - first, before + last + 1) for first, last in (rows, columns)]
    return Neighbourhood((1, 1), rows, columns), left[0], left[1]
