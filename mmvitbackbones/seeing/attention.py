"""What a query of a block attends to: each key on its grid, at its true place and size."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ..backbones.focal_transformer import FocalBlock, coarse_region
from ..backbones.pyramid import Pyramid
from ..backbones.regionvit import Encoder, R2LEncoder, RegionViT
from ..backbones.rmt import RMTBlock
from ..backbones.vision_longformer import (
    ViLBlock,
    VisionLongformerAttention,
    neighbourhoods,
)
from ..ops import watching
from ..ops.manhattan import log_decay
from ..ops.windows import Neighbourhood, grid

_Size = tuple[int, int]


@dataclass(frozen=True)
class Keys:
    """Keys that lie on one grid.

    Attributes:
        name (str): What they are to a query.
        seen (Neighbourhood): The keys of each window of queries, in the order of the weights.
        grid (tuple[int, int]): Rows and columns of the grid, its padding included.
        cell (tuple[float, float], optional): Height and width of a key in pixels of the image;
            None: keys without a place, such as global tokens.
        around (str, optional): What the keys beyond the window itself are called.
    """

    name: str
    seen: Neighbourhood
    grid: _Size
    cell: tuple[float, float] | None
    around: str | None = None


@dataclass(frozen=True)
class Part:
    """What a query attends to on one grid.

    Attributes:
        name (str): What it is to the query.
        values (Tensor): Weights (heads, rows, columns); NaN for what the query does not see.
        cell (tuple[float, float], optional): As of :class:`Keys`.
    """

    name: str
    values: Tensor
    cell: tuple[float, float] | None

    @property
    def sums(self) -> Tensor:
        """The sum of its weights, (heads,)."""
        return self.values.nan_to_num().flatten(1).sum(1)


@dataclass(frozen=True)
class View:
    """One attention of a block.

    Attributes:
        name (str): What attends to what.
        weights (Tensor): Of a single image, (windows, heads, N, K).
        queries (_Size): Height and width of the windows of queries, N of them each.
        cell (tuple[float, float]): Height and width of a query in pixels of the image.
        grid (tuple[int, int]): Rows and columns of queries, with padding.
        keys (Sequence[Keys]): What the K keys are, in their order.
        of_tokens (bool): Whether the queries are local tokens.
    """

    name: str
    weights: Tensor
    queries: _Size
    cell: tuple[float, float]
    grid: _Size
    keys: Sequence[Keys]
    of_tokens: bool = True

    def place(self, y: float, x: float) -> _Size:
        """Row and column of the query at a pixel."""
        row, column = (int(p // side) for p, side in zip((y, x), self.cell))
        return min(max(row, 0), self.grid[0] - 1), min(max(column, 0), self.grid[1] - 1)

    def window_of(self, row: int, column: int) -> _Size:
        """Number of a query's window, and of the query within it."""
        height, width = self.queries
        columns = grid(self.grid, self.queries)[1]
        window = row // height * columns + column // width
        return window, row % height * width + column % width

    def at(self, y: float, x: float) -> list[Part]:
        """What the query at a pixel of the image attends to."""
        window, number = self.window_of(*self.place(y, x))
        counts = [keys.seen.size[0] * keys.seen.size[1] for keys in self.keys]
        weights = self.weights[window, :, number].split(counts, dim=-1)
        return [part for each, w in zip(self.keys, weights) for part in _parts(each, window, w)]


@dataclass(frozen=True)
class RowsThenColumns:
    """Attention along rows, then along columns, as one: the product of both (RMT, Eq. 6).

    Attributes:
        name (str): What it is called.
        rows (View): Attention along rows.
        columns (View): Attention along columns.
    """

    name: str
    rows: View
    columns: View
    of_tokens = True

    def at(self, y: float, x: float) -> list[Part]:
        """What the query at a pixel of the image attends to, over rows and columns."""
        row, column = self.rows.place(y, x)
        down = self.columns.weights[column, :, row]  # (heads, H)
        across = self.rows.weights[:, :, column]  # (H, heads, W)
        product = down[:, :, None] * across.transpose(0, 1)
        return [Part('all tokens', product, self.rows.cell)]


@dataclass(frozen=True)
class Decay:
    """The decay alone, of each head for a token's distance (RMT, Eq. 4).

    Attributes:
        name (str): What it is called.
        log_gamma (tuple[float, ...]): Logarithm of the decay of each head.
        cell (tuple[float, float]): Height and width of a token in pixels of the image.
        grid (tuple[int, int]): Rows and columns of tokens.
    """

    name: str
    log_gamma: tuple[float, ...]
    cell: tuple[float, float]
    grid: _Size

    def at(self, y: float, x: float) -> list[Part]:
        """The decay from the query at a pixel to all tokens."""
        sides = []
        for pixel, cell, count in zip((y, x), self.cell, self.grid):
            place = min(max(int(pixel // cell), 0), count - 1)
            lines = log_decay(self.log_gamma, count, torch.device('cpu'), torch.float32)
            sides.append(lines[:, place])
        values = (sides[0][:, :, None] + sides[1][:, None]).exp()
        return [Part('decay', values, self.cell)]


AnyView: TypeAlias = 'View | RowsThenColumns | Decay'


@dataclass
class BlockAttention:
    """All attentions of a block.

    Attributes:
        stage (int): Its stage, from 0.
        block (int): Its number in the stage, from 0.
        stride (int): Pixels of the image between neighbouring tokens.
        size (tuple[int, int]): Rows and columns of tokens, without padding.
        views (list): What attends to what.
    """

    stage: int
    block: int
    stride: int
    size: _Size
    views: list[AnyView]

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return next(view.weights.shape[1] for view in self.views if isinstance(view, View))


@dataclass
class _Running:
    """A block that is running: what it was given, and the weights it has computed so far."""

    stage: int
    block: int
    stride: int
    size: _Size
    module: nn.Module
    inputs: tuple[Any, ...]
    weights: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def watch_blocks(
    backbone: Pyramid,
    image: Tensor,
    see: Callable[[BlockAttention], object],
    wanted: Container[tuple[int, int]] | None = None,
) -> tuple[Tensor, ...]:
    """Run a backbone, and show the attention of its blocks one after the other.

    Args:
        backbone (Pyramid): In evaluation mode.
        image (Tensor): (1, C, H, W).
        see (Callable[[BlockAttention], object]): Called with each block's attention; what it does
            not keep is forgotten.
        wanted (Container[tuple[int, int]], optional): Numbers of stage and block, from 0; None:
            all blocks.

    Returns:
        tuple[Tensor, ...]: The backbone's maps.

    Raises:
        ValueError: If it is no single image, or a block is of a kind that nobody can read.
    """
    if image.shape[0] != 1:
        raise ValueError(f'attention is shown of one image at a time, got {image.shape[0]}')
    strides = token_strides(backbone)
    running: _Running | None = None
    handles = []

    def begin(stage: int, block: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            nonlocal running
            stride = strides[stage]
            size = -(-image.shape[2] // stride), -(-image.shape[3] // stride)
            running = _Running(stage, block, stride, size, module, inputs)

        return hook

    def end(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        nonlocal running
        assert running is not None
        views = _reader(module)(running)
        attention = BlockAttention(
            running.stage, running.block, running.stride, running.size, views
        )
        running = None
        see(attention)

    def collect(weights: Tensor) -> None:
        if running is not None:
            running.weights.append(weights.float().cpu())

    for i, stage in enumerate(backbone.stages):
        for j, block in enumerate(cast(nn.ModuleList, stage.blocks)):
            if wanted is None or (i, j) in wanted:
                _reader(block)
                handles.append(block.register_forward_pre_hook(begin(i, j)))
                handles.append(block.register_forward_hook(end))
    try:
        with watching(collect):
            return backbone(image)
    finally:
        for handle in handles:
            handle.remove()


def token_strides(backbone: Pyramid) -> tuple[int, ...]:
    """Pixels of the image between neighbouring local tokens, of each stage."""
    if isinstance(backbone, RegionViT) and backbone.emitted:  # the strides of regional tokens
        return tuple(stride // backbone.window_size for stride in backbone.stage_strides)
    return backbone.stage_strides


def _parts(keys: Keys, window: int, weights: Tensor) -> list[Part]:
    """Lay the weights of a query, (heads, K), out on the keys' grid."""
    if keys.cell is None:
        window = 0  # the same for all windows
    find = keys.seen.places, keys.seen.on_map
    places, on_map = (each(keys.grid, weights.device)[window] for each in find)
    groups = {keys.name: on_map}
    if keys.around is not None:
        own = _is_own(keys.seen)
        groups = {keys.name: on_map & own, keys.around: on_map & ~own}
    parts = []
    for name, where in groups.items():
        values = weights.new_zeros(len(weights), keys.grid[0] * keys.grid[1])
        # A window that wraps round a small map may see a token more than once.
        values.index_add_(1, places[where], weights[:, where])
        seen = torch.zeros(values.shape[1], dtype=torch.bool)
        seen[places[where]] = True
        values[:, ~seen] = float('nan')
        parts.append(Part(name, values.unflatten(1, keys.grid), keys.cell))
    return parts


def _is_own(seen: Neighbourhood) -> Tensor:
    """Which of the tokens that a window sees are its own: (K,)."""
    own = torch.zeros(seen.size, dtype=torch.bool)
    rows, columns = (
        slice(max(before, 0), max(before, 0) + side)
        for (before, _), side in zip((seen.rows, seen.columns), seen.window)
    )
    own[rows, columns] = True
    return own.flatten()


def _cell(side: float) -> tuple[float, float]:
    return side, side


def _of_regionvit(running: _Running) -> list[AnyView]:
    tokens, window, _ = running.inputs
    rows, columns = regions = tokens.shape[1], tokens.shape[2]
    assert isinstance(running.module, Encoder)
    side = running.module.bias.window * running.stride
    # With published padding there may be regions without a window on the map.
    own = grid(running.size, window)
    local = running.weights[-1].unflatten(0, regions)[: own[0], : own[1]].flatten(0, 1)
    in_window = Keys('its window', Neighbourhood(window), running.size, _cell(running.stride))
    keys = [in_window]
    views: list[AnyView] = []
    if isinstance(running.module, R2LEncoder):
        keys.insert(0, Keys('its region', Neighbourhood((1, 1)), own, _cell(side)))
        among = Keys('regions', Neighbourhood(regions), regions, _cell(side))
        views.append(
            View(
                'first: its region to all regions',
                running.weights[0],
                regions,
                _cell(side),
                regions,
                [among],
                of_tokens=False,
            )
        )
    first = len(keys) - 1
    views.append(
        View(
            'token to its region and window' if first else 'token to its window',
            local[:, :, first:],
            window,
            _cell(running.stride),
            in_window.grid,
            keys,
        )
    )
    if first:
        views.append(
            View(
                'its region to itself and window',
                local[:, :, :1],
                (1, 1),
                _cell(side),
                own,
                keys,
                of_tokens=False,
            )
        )
    return views


def _of_focal(running: _Running) -> list[AnyView]:
    assert isinstance(running.module, FocalBlock)
    attn, cell = running.module.attn, _cell(running.stride)
    window = attn.window, attn.window
    windows = grid(running.size, window)
    padded = windows[0] * window[0], windows[1] * window[1]
    around = None if attn.fine.is_window else 'ring'
    keys = [Keys('fine', attn.fine, padded, cell, around)]
    if attn.pool is not None:
        coarse, _, _ = coarse_region(attn.focal_window, windows)
        keys.append(Keys('coarse', coarse, windows, _cell(attn.window * running.stride)))
    name = (
        f'token to {", ".join(x for x in ("fine", around, "coarse" if attn.pool else None) if x)}'
    )
    return [View(name, running.weights[0], window, cell, padded, keys)]


def _of_vil(running: _Running) -> list[AnyView]:
    x, *others = running.inputs
    assert isinstance(running.module, ViLBlock)
    attn, size, cell = running.module.attn, running.size, _cell(running.stride)
    count = others[0].shape[1] if others else 0
    no_place = Keys('global tokens', Neighbourhood((1, count)), (1, count), None)
    everything = Keys('all tokens', Neighbourhood(size), size, cell)
    if isinstance(attn, VisionLongformerAttention):
        window = attn.window, attn.window
        windows = grid(size, window)
        queries = windows[0] * window[0], windows[1] * window[1]
        chunks = ((0, 0),) if attn.shift_mode < 0 else None
        around = 'neighbours' if chunks is None else None
        keys = [
            Keys('chunk', seen, size, cell, around) for seen in neighbourhoods(attn.window, chunks)
        ]
        if count:
            keys.append(no_place)
    else:
        window, queries = size, size
        keys = [no_place, everything] if count else [everything]
    name = ', '.join(x for each in keys for x in (each.name, each.around) if x)
    # Full attention computes that of the local tokens first, too.
    views: list[AnyView] = [
        View(f'token to {name}', running.weights[0], window, cell, queries, keys)
    ]
    if count and attn.queries:
        whole = size[0] * running.stride, size[1] * running.stride
        for number in range(count):
            views.append(
                View(
                    f'global token {number + 1} to all tokens',
                    running.weights[1][:, :, number : number + 1],
                    (1, 1),
                    whole,
                    (1, 1),
                    [no_place, everything],
                    of_tokens=False,
                )
            )
    return views


def _of_rmt(running: _Running) -> list[AnyView]:
    assert isinstance(running.module, RMTBlock)
    attn, size, cell = running.module.attn, running.size, _cell(running.stride)
    views: list[AnyView] = []
    lines: dict[str, _Size] = dict(whole=size)
    if attn.form == 'decomposed':
        lines = dict(row=(1, size[1]), column=(size[0], 1))
    for (name, window), weights in zip(lines.items(), running.weights):
        keys = Keys(
            'all tokens' if name == 'whole' else f'its {name}', Neighbourhood(window), size, cell
        )
        title = 'token to all tokens' if name == 'whole' else f'token to its {name}'
        views.append(View(title, weights, window, cell, size, [keys]))
    if attn.form == 'decomposed':
        rows, columns = views
        assert isinstance(rows, View) and isinstance(columns, View)
        views.append(RowsThenColumns('product of row and column', rows, columns))
    if attn.log_gamma is not None:
        views.append(Decay('decay alone', attn.log_gamma, cell, size))
    return views


_READERS: dict[type[nn.Module], Callable[[_Running], list[AnyView]]] = {
    Encoder: _of_regionvit,
    FocalBlock: _of_focal,
    RMTBlock: _of_rmt,
    ViLBlock: _of_vil,
}


def _reader(block: nn.Module) -> Callable[[_Running], list[AnyView]]:
    """What reads the weights of a block.

    Raises:
        ValueError: If nothing does.
    """
    for kind in type(block).__mro__:
        if kind in _READERS:
            return _READERS[kind]
    raise ValueError(
        f'nobody can read the attention of {type(block).__name__}: '
        'mmvitbackbones/seeing/attention.py knows how the blocks of each family are read'
    )
