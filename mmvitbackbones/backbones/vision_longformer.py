"""ViL, Multi-Scale Vision Longformer: local attention with a global memory (Zhang et al., 2021)."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model.weight_init import trunc_normal_
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..checkpoints.vision_longformer import FAMILY
from ..layers import (
    PEG,
    AbsolutePosition,
    FeedForward,
    MapPositionBias,
    PatchEmbedding,
    PatchStem,
    RelativePositionBias,
    Residual,
    SelfAttention,
)
from ..ops.attention import attend, attend_map, softmax_attention
from ..ops.tables import bias_from
from ..ops.windows import Neighbourhood, crop, pad_to_multiple
from .options import (
    check_choice,
    check_flags,
    check_heads,
    check_positive,
    check_rates,
    drop_path_rates,
    each_of,
    one_each,
    resolve_arch,
)
from .pyramid import Pyramid, Stage

EPS = 1e-6


def _arch(
    depths: Sequence[int], heads: Sequence[int], dims: Sequence[int], patch: int = 4
) -> dict[str, Any]:
    patches = [patch] + [2] * (len(depths) - 1)
    return dict(dims=list(dims), heads=list(heads), depths=list(depths), patches=patches)


# Table 1; medium's and base's wide ones with the heads and channels of the published weights.
ARCHS = dict(
    tiny=_arch((1, 1, 9, 1), (1, 3, 3, 6), (48, 96, 192, 384)),
    small=_arch((1, 2, 8, 1), (3, 3, 6, 12), (96, 192, 384, 768)),
    medium_deep=_arch((1, 4, 16, 1), (3, 3, 6, 12), (96, 192, 384, 768)),
    medium_wide=_arch((1, 2, 8, 1), (3, 6, 8, 12), (192, 384, 512, 768)),
    base_deep=_arch((1, 8, 24, 1), (3, 3, 6, 12), (96, 192, 384, 768)),
    base_wide=_arch((1, 2, 8, 1), (3, 6, 12, 16), (192, 384, 768, 1024)),
    tiny_3stage=_arch((2, 9, 1), (3, 3, 6), (96, 192, 384), patch=8),
    small_3stage=_arch((2, 9, 1), (3, 6, 12), (192, 384, 768), patch=8),
)


@MODELS.register_module()
class VisionLongformer(Pyramid):
    """ViL, emitting the local tokens of each stage.

    Each stage has a few global tokens of its own. Local tokens attend to those around them and to
    the global ones, global tokens to all (Sec. 3.2).

    Args:
        arch (str | dict): 'tiny', 'small', 'medium_deep', 'medium_wide', 'base_deep', 'base_wide',
            and 'tiny_3stage', 'small_3stage' with strides 8, 16, 32 (Table 1; the deep ones have
            the channels of 'small', the wide ones its depths); or a dict with ``dims``, ``heads``
            and ``depths``, a list each with one entry a stage, and perhaps ``patches``, how many
            pixels or tokens a side make one token (4, 2, 2, ...). A dict that names one of them as
            ``base`` may leave out what is as there. Defaults to 'small'.
        attention (str | Sequence[str]): 'vil', or 'full' (among all tokens, "Full" in Table 2);
            for all stages, or one each. Defaults to 'vil'.
        num_global_tokens (int | Sequence[int], optional): Global tokens n_g, for all stages or one
            each; None: one in each but the last stage. Defaults to None.
        position (str): 'rpb', a relative position bias, or 'ape', an absolute position embedding.
            Defaults to 'rpb'.
        window_size (int | Sequence[int]): Side w of a chunk of tokens, which see their own chunk
            and the eight round it; for all stages, or one each. Defaults to 7.
        shift_mode (int): Which chunks local tokens see in 'vil' attention: 0: all nine; -1: their
            own only; k > 0, whatever k: in training their own and one of the eight, drawn anew at
            each use of each attention, else all nine. Defaults to 0.
        pretrain_img_size (int): Side, in pixels, of the images that the tables of 'ape' and of
            'full' attention's biases are stored for. For others they are resized bilinearly, but
            for images with shorter sides 'ape' reads the beginning of its tables, as published.
            Defaults to 224.
        peg (bool): A positional encoding generator after the first block of each stage. Defaults
            to False.
        outputs (str): 'local', the maps of local tokens, or 'all', of each emitted stage its
            global tokens and then its local ones, (B, C, n_g + H * W), which a classifier may
            take. Defaults to 'local'.
        out_indices (Sequence[int], optional): Stages to emit; None: all.
        out_norm (str, optional): 'output' (a LayerNorm on each map that leaves the backbone),
            'inline' (the next stage also receives it), or None, as in the published detectors.
            Defaults to 'output'.
        drop_path_rate (float): Stochastic depth, of the last block. Defaults to 0.1.
        drop_rate (float): Dropout after projections and in feed-forward networks. Defaults to 0.
        attn_drop_rate (float): Dropout of the attention weights; 'full' attention then takes memory
            for all pairs of tokens in training. Defaults to 0.
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
        arch: str | dict[str, Any] = 'small',
        attention: str | Sequence[str] = 'vil',
        num_global_tokens: int | Sequence[int] | None = None,
        position: str = 'rpb',
        window_size: int | Sequence[int] = 7,
        shift_mode: int = 0,
        pretrain_img_size: int = 224,
        peg: bool = False,
        outputs: str = 'local',
        out_indices: Sequence[int] | None = None,
        out_norm: str | None = 'output',
        drop_path_rate: float = 0.1,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        in_channels: int = 3,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        arch = _resolve(arch)
        check_choice('position', position, ('rpb', 'ape'))
        dims, heads, depths, patches = (arch[key] for key in ('dims', 'heads', 'depths', 'patches'))
        count = len(dims)
        _check_widths(dims, heads, position)
        forms = each_of('attention', attention, ('vil', 'full'), count)
        if num_global_tokens is None:
            num_global_tokens = [1] * (count - 1) + [0]
        tokens = one_each('num_global_tokens', num_global_tokens, count)
        windows = one_each('window_size', window_size, count, least=1)
        check_flags(peg=peg, with_cp=with_cp)
        check_choice('outputs', outputs, ('local', 'all'))
        if outputs == 'all' and out_norm == 'inline':
            raise ValueError("outputs='all' needs an out_norm other than 'inline'")
        whole = range(count) if out_indices is None else out_indices
        whole = whole if outputs == 'all' else ()
        check_positive(pretrain_img_size=pretrain_img_size, in_channels=in_channels)
        check_rates(
            drop_path_rate=drop_path_rate, drop_rate=drop_rate, attn_drop_rate=attn_drop_rate
        )
        stages, side = [], pretrain_img_size
        for i, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            side = -(-side // patches[i])
            blocks: list[nn.Module] = []
            for rate in rates:
                common: dict[str, Any] = dict(
                    dims=dims[i],
                    heads=heads[i],
                    num_tokens=tokens[i],
                    biased=position == 'rpb',
                    # No one sees what global tokens learn in a stage's last block, unless they
                    # are emitted.
                    queries=i in whole or len(blocks) < depths[i] - 1,
                    attn_drop=attn_drop_rate,
                    proj_drop=drop_rate,
                )
                attn: ViLAttention
                if forms[i] == 'vil':
                    attn = VisionLongformerAttention(window=windows[i], **common)
                else:
                    attn = FullAttention(side=side, **common)
                blocks.append(ViLBlock(dims[i], attn, drop_path=rate, drop=drop_rate))
            downsample = PatchEmbedding(dims[i - 1], dims[i], patches[i], eps=EPS) if i else None
            stages.append(
                ViLStage(
                    blocks,
                    dims=dims[i],
                    num_tokens=tokens[i],
                    position=AbsolutePosition(side, dims[i]) if position == 'ape' else None,
                    with_cp=with_cp,
                    downsample=downsample,
                    peg=PEG(dims[i]) if peg else None,
                )
            )
        super().__init__(
            PatchStem(in_channels, dims[0], patches[0], eps=EPS),
            stages,
            dims,
            strides=list(itertools.accumulate(patches, operator.mul)),
            out_indices=out_indices,
            out_norm=out_norm,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            in_channels=in_channels,
            emitted=('local', 'all').index(outputs),
            init_cfg=init_cfg,
        )
        self.window_size = windows
        self.set_shift_mode(shift_mode)

    def set_shift_mode(self, shift_mode: int) -> None:
        """Change which chunks local tokens see.

        Args:
            shift_mode (int): As the option.

        Raises:
            ValueError: Unless it is an integer of at least -1.
        """
        if type(shift_mode) is not int or shift_mode < -1:
            raise ValueError(f'shift_mode must be an integer of at least -1, got {shift_mode!r}')
        self.shift_mode = shift_mode
        for module in self.modules():
            if isinstance(module, VisionLongformerAttention):
                module.shift_mode = shift_mode


class ViLStage(Stage):
    """Patch embedding, position embedding, then blocks on local and global tokens.

    Args:
        blocks (Sequence[nn.Module]): The blocks.
        dims (int): Channels C.
        num_tokens (int): Global tokens n_g, new in each stage.
        position (AbsolutePosition, optional): Of the local tokens; the global ones then have one,
            too.
        with_cp (bool): See :class:`Stage`.
        downsample (nn.Module, optional): The patch embedding of all but the first stage.
        peg (nn.Module, optional): See :class:`Stage`.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        dims: int,
        num_tokens: int,
        position: AbsolutePosition | None,
        with_cp: bool,
        downsample: nn.Module | None,
        peg: nn.Module | None,
    ) -> None:
        super().__init__(blocks, with_cp=with_cp, downsample=downsample, peg=peg)
        self.position = position
        self.global_tokens = self.global_position = None
        if num_tokens:
            self.global_tokens = _parameter(num_tokens, dims)
            if position is not None:
                self.global_position = _parameter(num_tokens, dims)

    def forward(self, x: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        """Run the stage.

        Args:
            x (Tensor): A map of tokens, (B, H, W, C).
            _ (Tensor): All tokens of the previous stage, which this one has no use for.

        Returns:
            tuple[Tensor, Tensor]: The map at this stage; a view of it, or a copy with the stage's
            global tokens before it where its last block has those, (B, n_g + H * W, C).
        """
        x = self.downsample(x)
        if self.position is not None:
            x = self.position(x)
        tokens = (x, *self._global_tokens(x.shape[0]))
        for i, block in enumerate(self.blocks):
            tokens = self.run(block, *tokens)
            if i == 0 and self.peg is not None:
                tokens = (self.peg(tokens[0]), *tokens[1:])
        x, *others = tokens
        everything = x.flatten(1, 2)
        return x, torch.cat([*others, everything], dim=1) if others else everything

    def _global_tokens(self, batch: int) -> list[Tensor]:
        """The global tokens of a batch, (B, n_g, C), if there are any."""
        tokens: Tensor | None = self.global_tokens
        if tokens is None:
            return []
        if self.global_position is not None:
            tokens = tokens + self.global_position
        return [tokens.repeat(batch, 1, 1)]


class ViLBlock(nn.Module):
    """Attention, then a feed-forward network, on local and global tokens alike.

    Args:
        dims (int): Channels C.
        attn (nn.Module): The attention.
        drop_path (float): Stochastic depth.
        drop (float): Dropout of projections.
    """

    def __init__(self, dims: int, attn: nn.Module, drop_path: float, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims, eps=EPS)
        self.attn = attn
        self.residual = Residual(drop_path)
        self.norm2 = nn.LayerNorm(dims, eps=EPS)
        self.ffn = FeedForward(dims, 4 * dims, drop)

    def forward(self, *tokens: Tensor) -> tuple[Tensor, ...]:
        """Run the block.

        Args:
            tokens (Tensor): Local tokens, (B, H, W, C); global ones, (B, n_g, C), if any.

        Returns:
            tuple[Tensor, ...]: The same, or without the global tokens after a stage's last block.
        """
        tokens = self.residual.each(tokens, self.attn(*map(self.norm1, tokens)))
        return self.residual.each(tokens, [self.ffn(self.norm2(x)) for x in tokens])


class GlobalBias(nn.Module):
    """Learned biases of pairs of tokens one of which, or both, are global.

    Args:
        heads (int): Attention heads.
        num_tokens (int): Global tokens n_g.
        queries (bool): Whether global tokens are queries, too, which takes two more biases.
    """

    def __init__(self, heads: int, num_tokens: int, queries: bool) -> None:
        super().__init__()
        self.local_to_global = _parameter(heads, num_tokens)
        if queries:
            self.global_to_local = _parameter(heads, num_tokens)
            self.global_to_global = _parameter(heads, num_tokens, num_tokens)

    def of_queries(self, size: Sequence[int]) -> Tensor:
        """Biases of global tokens to all tokens, those of a map behind them.

        Args:
            size (Sequence[int]): Height H and width W of the map.

        Returns:
            Tensor: (heads, n_g, n_g + H * W).
        """
        to_local = self.global_to_local[:, :, None].expand(-1, -1, size[0] * size[1])
        return torch.cat([self.global_to_global, to_local], dim=2)


class ViLAttention(SelfAttention):
    """What both forms of attention share: projections and biases of global tokens.

    Args:
        dims (int): Channels C.
        heads (int): Attention heads.
        num_tokens (int): Global tokens n_g.
        biased (bool): Whether scores get learned biases.
        queries (bool): Whether global tokens attend, and not only are attended to.
        attn_drop (float): Dropout of the attention weights.
        proj_drop (float): Dropout of the output.
    """

    def __init__(
        self,
        dims: int,
        heads: int,
        num_tokens: int,
        biased: bool,
        queries: bool,
        attn_drop: float,
        proj_drop: float,
    ) -> None:
        super().__init__(dims, heads, attn_drop, proj_drop)
        self.queries = queries
        has_bias = biased and num_tokens
        self.global_bias = GlobalBias(heads, num_tokens, queries) if has_bias else None


class VisionLongformerAttention(ViLAttention):
    """Vision Longformer attention (Sec. 3.2, Figure 2).

    Args:
        window (int): Side w of a chunk.
        biased (bool): Whether scores get learned biases.
        heads (int): Attention heads.
        common (Any): See :class:`ViLAttention`.
    """

    def __init__(self, window: int, biased: bool, heads: int, **common: Any) -> None:
        super().__init__(biased=biased, heads=heads, **common)
        self.window = window
        self.bias = RelativePositionBias(window, heads, 3 * window) if biased else None
        self.shift_mode = 0

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, ...]:
        """Attend.

        Args:
            x (Tensor): Local tokens, (B, H, W, C).
            tokens (Tensor, optional): Global tokens, (B, n_g, C).

        Returns:
            tuple[Tensor, ...]: The same; without the global tokens if they are no queries.
        """
        size = x.shape[1:3]
        x = self.project(pad_to_multiple(x, self.window, self.window))
        if tokens is None:
            return (self.output(self._local(x, None, size)),)
        tokens = self.project(tokens)
        local = self.output(self._local(x, tokens, size))
        return (local, self.output(self._global(x, tokens, size))) if self.queries else (local,)

    def _local(self, x: Tensor, tokens: Tensor | None, size: Sequence[int]) -> Tensor:
        """From local tokens to those near them and to the global ones.

        Args:
            x (Tensor): Projections of the local tokens, (B, H', W', 3, heads, d), H' and W'
                multiples of the window.
            tokens (Tensor, optional): Those of the global tokens, (B, n_g, 3, heads, d).
            size (Sequence[int]): Height H and width W of the map without its padding.

        Returns:
            Tensor: (B, H, W, C).
        """
        window = self.window
        bias = None if self.bias is None else self.bias()
        chunks = self._chunks()
        if bias is not None and chunks is not None:
            bias = _of_chunks(bias, window, chunks)
        seen = neighbourhoods(window, chunks)
        maps, sizes = [x] * len(seen), [size] * len(seen)
        if tokens is not None:
            # Every window has a copy of the few global tokens.
            count, grid = tokens.shape[1], (x.shape[1] // window, x.shape[2] // window)
            copies = tokens[:, None, None].expand(-1, *grid, *tokens.shape[1:])
            maps.append(copies.flatten(2, 3))
            sizes.append((grid[0], grid[1] * count))
            seen.append(Neighbourhood((1, count)))
            if bias is not None and self.global_bias is not None:
                to_global = self.global_bias.local_to_global[:, None].expand(-1, bias.shape[1], -1)
                bias = torch.cat([bias, to_global], dim=2)
        return crop(attend(maps, seen, bias, sizes, self.dropout_p), size)

    def _global(self, x: Tensor, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """From global tokens to all, (B, n_g, C); arguments as in :meth:`_local`."""
        # One window of all the tokens.
        seen = [Neighbourhood((1, tokens.shape[1])), Neighbourhood((size[0], size[1]))]
        bias = None if self.global_bias is None else self.global_bias.of_queries(size)
        maps = [tokens[:, None], crop(x, size)]
        return attend(maps, seen, bias, dropout_p=self.dropout_p)[:, 0]

    def _chunks(self) -> tuple[tuple[int, int], ...] | None:
        """Offsets of the chunks that are seen now; None for all nine."""
        if self.shift_mode == 0 or (self.shift_mode > 0 and not self.training):
            return None
        if self.shift_mode < 0:
            return ((0, 0),)
        # From torch's generator, which checkpointing sets back.
        drawn = int(torch.randint(8, (), device='cpu'))
        place = drawn + (drawn >= 4)
        return (0, 0), (place // 3 - 1, place % 3 - 1)


class FullAttention(ViLAttention):
    """Attention among all tokens ("Full" in Table 2).

    Args:
        side (int): Height and width, in tokens, of the map that the table of biases is stored for.
        biased (bool): Whether scores get learned biases.
        heads (int): Attention heads.
        common (Any): See :class:`ViLAttention`.
    """

    def __init__(self, side: int, biased: bool, heads: int, **common: Any) -> None:
        super().__init__(biased=biased, heads=heads, **common)
        self.bias = MapPositionBias(side, heads) if biased else None

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, ...]:
        """Attend; as :meth:`VisionLongformerAttention.forward`."""
        size, everything, count = x.shape[1:3], x.flatten(1, 2), 0
        if tokens is not None:
            count = tokens.shape[1]
            everything = torch.cat([tokens, everything], dim=1)
        q, k, v = (t.transpose(1, 2) for t in self.project(everything).unbind(2))
        y = self._local(q[:, :, count:], k, v, size)
        asking = count if self.queries else 0  # global tokens among the queries
        if asking:
            y = torch.cat([self._global(q[:, :, :count], k, v, size), y], dim=2)
        y = self.output(y.transpose(1, 2).flatten(2))
        local = y[:, asking:].unflatten(1, size)
        return (local, y[:, :asking]) if asking else (local,)

    def _local(self, q: Tensor, k: Tensor, v: Tensor, size: Sequence[int]) -> Tensor:
        """From local tokens, (B, heads, H * W, d), to all, (B, heads, n_g + H * W, d)."""
        if self.bias is None:
            return softmax_attention(q, k, v, dropout_p=self.dropout_p)
        learned = [self.bias(size)]
        if self.global_bias is not None:
            learned.append(self.global_bias.local_to_global)

        def bias(queries: slice, offsets: Tensor, *local_to_global: Tensor) -> Tensor:
            """Of some queries to all keys, (heads, queries, n_g + H * W)."""
            found = bias_from(offsets, queries)
            others = (x[:, None].expand(-1, found.shape[1], -1) for x in local_to_global)
            return torch.cat([*others, found], dim=2)

        return attend_map(q, k, v, bias, learned, size, self.dropout_p)

    def _global(self, q: Tensor, k: Tensor, v: Tensor, size: Sequence[int]) -> Tensor:
        """From global tokens, (B, heads, n_g, d), to all."""
        bias = None if self.global_bias is None else self.global_bias.of_queries(size)
        return softmax_attention(q, k, v, bias, dropout_p=self.dropout_p)


def neighbourhoods(window: int, chunks: tuple[tuple[int, int], ...] | None) -> list[Neighbourhood]:
    """What a chunk of tokens sees: all nine chunks at once, or some of them, one by one."""
    own = (window, window)
    if chunks is None:
        return [Neighbourhood(own, own, own)]
    return [
        Neighbourhood(own, (-dy * window, dy * window), (-dx * window, dx * window))
        for dy, dx in chunks
    ]


def _of_chunks(x: Tensor, window: int, chunks: Sequence[tuple[int, int]]) -> Tensor:
    """Of (..., (3w) ** 2), by key, what belongs to some of the 3 x 3 chunks, in their order."""
    x = x.unflatten(-1, (3, window, 3, window))
    return torch.cat([x[..., 1 + dy, :, 1 + dx, :].flatten(-2) for dy, dx in chunks], dim=-1)


def _parameter(*shape: int) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(shape))
    trunc_normal_(parameter, std=0.02)
    return parameter


def _resolve(arch: str | Mapping[str, Any]) -> dict[str, Any]:
    arch = resolve_arch(
        arch, ARCHS, per_stage=('dims', 'heads', 'depths'), optional=dict(patches=None)
    )
    stages = len(arch['dims'])
    patches = [4] + [2] * (stages - 1) if arch['patches'] is None else arch['patches']
    return {**arch, 'patches': one_each("arch['patches']", patches, stages, least=1)}


def _check_widths(dims: Sequence[int], heads: Sequence[int], position: str) -> None:
    check_heads(dims, heads)
    if position == 'ape' and any(dim % 2 for dim in dims):
        raise ValueError(f"arch: position='ape' needs even channels in each stage, got {dims}")
