"""Figures of what a backbone sees, by matplotlib; no window is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from torch import Tensor

from .attention import AnyView, BlockAttention, Decay, Part, View, token_strides
from .receptive_field import ReceptiveField
from .subject import Subject, stages_of

PANEL = 3.4  # inches a side
DPI = 120
_HEAT = 'inferno'
_QUERY = '#00e5ff'
_PICTURE = 0.55  # how strong a picture is below what is drawn on it
_COVER = 0.8  # how much of it that hides


def save(figure: Figure, path: Path) -> None:
    """Write a figure; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=DPI)


def attention_figure(
    subject: Subject, attention: BlockAttention, point: tuple[float, float], head: int | None
) -> Figure:
    """What a token attends to: the picture, then a panel for each attention and grid of keys.

    Args:
        subject (Subject): The backbone and its image.
        attention (BlockAttention): Of the block.
        point (tuple[float, float]): The query's y and x, in pixels of the image.
        head (int, optional): Number of the head, from 0; None: the mean of all.

    Returns:
        Figure: To be saved.
    """
    panels: list[tuple[AnyView, list[Part]]] = []
    for view in attention.views:
        panels += [(view, parts) for parts in _by_grid(view.at(*point))]
    figure, axes = _panels(1 + len(panels), subject.size)
    heads = f'mean of {attention.heads} heads'
    if head is not None:
        heads = f'head {head + 1} of {attention.heads}'
    count = len(stages_of(subject.backbone)[attention.stage].blocks)
    figure.suptitle(
        f'{subject.name}: stage {attention.stage + 1}, block {attention.block + 1} of {count}, '
        f'{heads}',
        fontsize=11,
    )
    axes[0].imshow(subject.picture, extent=_extent(subject.size))
    token = (float(attention.stride),) * 2
    mark_query(axes[0], point, token)
    axes[0].set_title('the query', fontsize=9)
    for ax, (view, parts) in zip(axes[1:], panels):
        shown = draw_parts(ax, subject, parts, head)
        mark_query(ax, point, view.cell if isinstance(view, View) else token)
        ax.set_title(f'{view.name}\n{_shares(view, parts, head)}', fontsize=9)
        bar = figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
        bar.set_label('decay' if isinstance(view, Decay) else 'weight of a key', fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure


def receptive_field_figure(subject: Subject, fields: Sequence[ReceptiveField]) -> Figure:
    """How much each pixel moves the token of each stage.

    Args:
        subject (Subject): The backbone and its image.
        fields (Sequence[ReceptiveField]): One a stage.

    Returns:
        Figure: To be saved.
    """
    figure, axes = _panels(len(fields), subject.size)
    figure.suptitle(f'{subject.name}: effective receptive field', fontsize=11)
    for ax, field in zip(axes, fields):
        shown = draw_field(ax, subject, field)
        top, left, bottom, right = field.box()
        ax.set_title(
            f'stage {field.stage + 1}: half within {field.radius(0.5):.0f} pixels (circle),\n'
            f'90 % within {field.radius(0.9):.0f}; theoretical '
            f'{right - left} x {bottom - top} (box)',
            fontsize=8,
        )
        bar = figure.colorbar(shown, ax=ax, fraction=0.046, pad=0.03)
        bar.set_label('fourth root of gradient / maximum', fontsize=7)
        bar.ax.tick_params(labelsize=7)
    return figure


def pyramid_figure(
    subject: Subject, colours: Sequence[np.ndarray], stages: Sequence[int]
) -> Figure:
    """The feature maps, their three main directions of variation as red, green and blue.

    Args:
        subject (Subject): The backbone and its image.
        colours (Sequence[np.ndarray]): RGB, one a map.
        stages (Sequence[int]): Their stages, from 0.

    Returns:
        Figure: To be saved.
    """
    figure, axes = _panels(1 + len(colours), subject.size)
    figure.suptitle(f'{subject.name}: feature maps, principal components as colours', fontsize=11)
    axes[0].imshow(subject.picture, extent=_extent(subject.size))
    axes[0].set_title('the image', fontsize=9)
    strides = token_strides(subject.backbone)
    for ax, map_, stage in zip(axes[1:], colours, stages):
        extent = _extent([side * strides[stage] for side in map_.shape[:2]])
        ax.imshow(map_, extent=extent, interpolation='nearest')
        ax.set(xlim=(0, subject.size[1]), ylim=(subject.size[0], 0))
        ax.set_title(f'stage {stage + 1}: {map_.shape[1]} x {map_.shape[0]} tokens', fontsize=9)
    return figure


def grad_cam_figure(
    subject: Subject, seen: np.ndarray, name: str, score: float, stage: int
) -> Figure:
    """Where the model saw a class.

    Args:
        subject (Subject): The backbone and its image.
        seen (np.ndarray): Of :func:`.grad_cam.grad_cam`.
        name (str): The class.
        score (float): Its score.
        stage (int): The stage, from 0.

    Returns:
        Figure: To be saved.
    """
    figure, axes = _panels(2, subject.size)
    figure.suptitle(f'{subject.name}: Grad-CAM of {name!r}, stage {stage + 1}', fontsize=11)
    axes[0].imshow(subject.picture, extent=_extent(subject.size))
    axes[0].set_title(f'the image; score {score:.3g}', fontsize=9)
    stride = token_strides(subject.backbone)[stage]
    shown = _heat(axes[1], subject, seen, stride)
    axes[1].set_title(f'{seen.shape[1]} x {seen.shape[0]} tokens', fontsize=9)
    bar = figure.colorbar(shown, ax=axes[1], fraction=0.046, pad=0.03)
    bar.set_label('raises the score', fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def mark_query(ax: Axes, point: tuple[float, float], cell: tuple[float, float]) -> None:
    """Frame the token at a pixel, of a height and width, so that it is found at once."""
    y, x = (int(p // side) * side for p, side in zip(point, cell))
    for edge, width in (('black', 3), (_QUERY, 1.5)):
        box = Rectangle((x, y), cell[1], cell[0], fill=False, edgecolor=edge, linewidth=width)
        ax.add_patch(box)


def draw_parts(
    ax: Axes, subject: Subject, parts: Sequence[Part], head: int | None
) -> ScalarMappable:
    """Draw keys at their places, the largest below; keys without a place as squares under it.

    Args:
        ax (Axes): Where to.
        subject (Subject): The backbone and its image.
        parts (Sequence[Part]): What a query attends to.
        head (int, optional): Number of the head, from 0; None: the mean of all.

    Returns:
        ScalarMappable: For a colour bar.
    """
    height, width = (float(side) for side in subject.size)
    _dim_picture(ax, subject)
    most = max(float(of_head(part.values, head).nan_to_num().max()) for part in parts)
    # One key often outweighs all others, which are to be seen, too.
    norm = PowerNorm(0.5, 0, max(most, 1e-12))
    placed = [part for part in parts if part.cell is not None]
    for part in sorted(placed, key=lambda part: -part.cell[0] if part.cell else 0):
        values = of_head(part.values, head).numpy()
        assert part.cell is not None
        if np.isnan(values).all():  # a window as large as the map has nothing around it
            continue
        rows, columns = values.shape
        extent = (0.0, columns * part.cell[1], rows * part.cell[0], 0.0)
        ax.imshow(
            values, cmap=_HEAT, norm=norm, extent=extent, interpolation='nearest', alpha=_COVER
        )
        bottom, right = (int(places.max()) + 1 for places in np.nonzero(~np.isnan(values)))
        height, width = max(height, bottom * part.cell[0]), max(width, right * part.cell[1])
    for part in parts:
        if part.cell is None:
            values = of_head(part.values, head).numpy()
            side = subject.size[1] / 12
            extent = (0.0, values.shape[1] * side, height + 1.6 * side, height + 0.6 * side)
            ax.imshow(values, cmap=_HEAT, norm=norm, extent=extent, interpolation='nearest')
            ax.text(extent[1] + side / 3, height + 1.1 * side, part.name, fontsize=8, va='center')
            height = extent[2]
    # Beyond the image, where tokens are padding.
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    return ScalarMappable(norm, _HEAT)


def draw_field(ax: Axes, subject: Subject, field: ReceptiveField) -> ScalarMappable:
    """Draw a receptive field: the circle that holds half of it, the box that holds all."""
    strength = field.strength.sqrt().sqrt()
    shown = _heat(ax, subject, (strength / strength.max()).numpy(), 1, opaque=True)
    top, left, bottom, right = field.box()
    box = Rectangle(
        (left, top), right - left, bottom - top, fill=False, edgecolor='white', linewidth=1.5
    )
    box.set_linestyle('--')
    ax.add_patch(box)
    y, x = field.token
    ax.add_patch(Circle((x, y), field.radius(0.5), fill=False, edgecolor=_QUERY, linewidth=1.5))
    return shown


def of_head(values: Tensor, head: int | None) -> Tensor:
    """One head's of (heads, ...), or the mean of all."""
    return values.mean(0) if head is None else values[head]


def _by_grid(parts: Sequence[Part]) -> list[list[Part]]:
    """What lies on one grid together; what has no place is with the first."""
    groups: dict[Any, list[Part]] = {}
    for part in parts:
        if part.cell is not None:
            groups.setdefault(part.cell, []).append(part)
    first = next(iter(groups.values()))
    first.extend(part for part in parts if part.cell is None)
    return list(groups.values())


def _shares(view: AnyView, parts: Sequence[Part], head: int | None) -> str:
    if isinstance(view, Decay):
        return '1 at the query'
    return ', '.join(f'{part.name} {100 * float(of_head(part.sums, head)):.3g} %' for part in parts)


def _heat(
    ax: Axes, subject: Subject, values: np.ndarray, cell: float, opaque: bool = False
) -> ScalarMappable:
    """Values from 0 to 1, at cells of some pixels, on the picture."""
    norm = Normalize(0, 1)
    _dim_picture(ax, subject)
    ax.imshow(
        values,
        cmap=_HEAT,
        norm=norm,
        extent=_extent([side * cell for side in values.shape]),
        alpha=1.0 if opaque else 0.6,
        interpolation='nearest',
    )
    ax.set(xlim=(0, subject.size[1]), ylim=(subject.size[0], 0))
    return ScalarMappable(norm, _HEAT)


def _dim_picture(ax: Axes, subject: Subject) -> None:
    """The picture in grey, so that colours are those of weights alone."""
    grey = cv2.cvtColor(np.ascontiguousarray(subject.picture), cv2.COLOR_RGB2GRAY)
    pale = 255 - _PICTURE * (255 - grey.astype(np.float32))
    ax.imshow(pale, cmap='gray', vmin=0, vmax=255, extent=_extent(subject.size))


def _extent(size: Sequence[float]) -> tuple[float, float, float, float]:
    return 0, size[1], size[0], 0


def _panels(count: int, size: tuple[int, int]) -> tuple[Figure, list[Axes]]:
    """Axes without ticks, two or three in a row."""
    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    ratio = min(max(size[0] / size[1], 0.6), 1.6)
    figure = Figure(
        figsize=(columns * PANEL * 1.15, rows * (PANEL * ratio + 0.55) + 0.4), layout='constrained'
    )
    axes = [ax for row in figure.subplots(rows, columns, squeeze=False) for ax in row]
    for ax in axes:
        bare(ax)
    for ax in axes[count:]:
        ax.axis('off')
    return figure, axes[:count]


def bare(ax: Axes) -> None:
    """No ticks; what is beyond the image is grey."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_facecolor('#e8e8e8')
