"""Several backbones on the same picture, a row each."""

from __future__ import annotations

from matplotlib.figure import Figure

from .attention import AnyView, BlockAttention, RowsThenColumns, View, watch_blocks
from .colours import principal_colours
from .drawing import bare, draw_field, draw_parts, mark_query
from .receptive_field import receptive_field
from .subject import Subject, stages_of

_SIDE = 2.0  # inches


def gallery_figure(subjects: list[Subject], point: tuple[float, float]) -> Figure:
    """What a token attends to at each stage, its receptive field, and the first features.

    Args:
        subjects (list[Subject]): The backbones.
        point (tuple[float, float]): The query's y and x, as fractions of height and width.

    Returns:
        Figure: To be saved.
    """
    stages = max(len(stages_of(subject.backbone)) for subject in subjects)
    columns = stages + 3
    figure = Figure(
        figsize=(columns * _SIDE, len(subjects) * _SIDE * 1.12 + 0.2), layout='constrained'
    )
    grid = figure.subplots(len(subjects), columns, squeeze=False)
    for row, (axes, subject) in enumerate(zip(grid, subjects)):
        for ax in axes:
            bare(ax)
        blocks: list[BlockAttention] = []
        last = {(i, len(s.blocks) - 1) for i, s in enumerate(stages_of(subject.backbone))}
        maps = watch_blocks(subject.backbone, subject.image, blocks.append, last)
        y, x = point[0] * subject.size[0], point[1] * subject.size[1]
        axes[0].imshow(subject.picture, extent=(0, subject.size[1], subject.size[0], 0))
        mark_query(axes[0], (y, x), (8, 8))
        axes[0].set_ylabel(type(subject.backbone).__name__, fontsize=10)
        for attention in blocks:
            ax = axes[1 + attention.stage]
            parts = main_view(attention).at(y, x)
            draw_parts(ax, subject, parts, None)
            ax.set_xlim(0, subject.size[1])
            # Room for what has no place.
            more = any(part.cell is None for part in parts)
            ax.set_ylim(subject.size[0] * (1.15 if more else 1), 0)
            mark_query(ax, (y, x), (attention.stride, attention.stride))
        field = receptive_field(subject.backbone, subject.image, len(last) - 1, y, x)
        draw_field(axes[stages + 1], subject, field)
        colours = principal_colours([maps[0][0]])[0]
        axes[stages + 2].imshow(colours, interpolation='nearest')
        if row == 0:
            titles = ['query', *(f'attends, stage {i + 1}' for i in range(stages))]
            for ax, title in zip(axes, [*titles, 'receptive field', 'first features']):
                ax.set_title(title, fontsize=10)
    return figure


def main_view(attention: BlockAttention) -> AnyView:
    """The attention of local tokens, of rows and columns as one."""
    kinds = (RowsThenColumns, View)
    views = [view for kind in kinds for view in attention.views if isinstance(view, kind)]
    return next(view for view in views if view.of_tokens)
