"""Attention weights of many queries, small enough for a page: bytes, and where each lies in them.

A weight takes a byte, the square root of its share of the query's largest weight: an error of at
most 0.4 % of that. Queries are stored a few tokens apart where all would be too many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .attention import AnyView, BlockAttention, Decay, Keys, RowsThenColumns, View, watch_blocks
from .subject import Subject


def encode(subject: Subject, limit: int) -> tuple[list[dict[str, Any]], bytes]:
    """Encode the attention of all blocks.

    Args:
        subject (Subject): A backbone and its image.
        limit (int): Bytes, at most.

    Returns:
        tuple: Of each stage its ``stride``, ``step`` (tokens from one stored query to the next) and
        ``blocks``, each a list of views; and the bytes that these point into.

    Raises:
        ValueError: If a single query of each block is too much.
    """
    steps = _steps(subject, limit)
    stages: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    end = 0

    def keep(piece: bytes) -> int:
        nonlocal end
        pieces.append(piece)
        end += len(piece)
        return end - len(piece)

    def see(attention: BlockAttention) -> None:
        step = steps[attention.stage]
        if attention.block == 0:
            stages.append(dict(stride=attention.stride, step=step, blocks=[]))
        views = []
        for view in attention.views:
            described = _described(view, attention.views)
            if isinstance(view, View):
                rows, columns = _stored(view, step)
                weights = _weights(view, rows, columns)
                largest = weights.amax(-1, keepdim=True)
                shares = (weights / largest.clamp(min=1e-30)).sqrt() * 255
                described.update(
                    steps=[_step(view, step, axis) for axis in (0, 1)],
                    stored=[len(rows), len(columns)],
                    largest=keep(largest.numpy().astype('<f4').tobytes()),
                    weights=keep(shares.round().to(torch.uint8).numpy().tobytes()),
                )
            views.append(described)
        stages[-1]['blocks'].append(dict(heads=attention.heads, views=views))

    watch_blocks(subject.backbone, subject.image, see)
    return stages, b''.join(pieces)


def _steps(subject: Subject, limit: int) -> Mapping[int, int]:
    """Of each stage, the tokens between stored queries: more for the stage that takes most."""
    views: dict[int, list[View]] = {}

    def see(attention: BlockAttention) -> None:
        found = views.setdefault(attention.stage, [])
        for view in attention.views:
            if isinstance(view, View):  # its geometry: the weights themselves are too many to keep
                found.append(replace(view, weights=torch.empty_like(view.weights, device='meta')))

    def size(stage: int) -> int:
        total = 0
        for view in views[stage]:
            rows, columns = _stored(view, steps[stage])
            heads, keys = view.weights.shape[1], view.weights.shape[3]
            total += len(rows) * len(columns) * heads * (keys + 4)
        return total

    watch_blocks(subject.backbone, subject.image, see)
    steps = dict.fromkeys(views, 1)
    sizes = {stage: size(stage) for stage in views}
    while sum(sizes.values()) > limit:
        # Those of which more than one row or column of queries is stored.
        left = [i for i in views if steps[i] < max(side for view in views[i] for side in view.grid)]
        if not left:
            raise ValueError(f'{subject.name}: its attention does not fit: a smaller --size does')
        largest = max(left, key=lambda stage: sizes[stage])
        steps[largest] += 1
        sizes[largest] = size(largest)
    return steps


def _step(view: View, step: int, axis: int) -> int:
    """Of RMT's attention along rows, the product with that along columns takes all rows."""
    along_rows = view.queries == (1, view.grid[1]) and view.grid[0] > 1
    return 1 if (along_rows and axis == 0) or not view.of_tokens else step


def _stored(view: View, step: int) -> tuple[range, range]:
    rows, columns = (range(0, side, _step(view, step, axis)) for axis, side in enumerate(view.grid))
    return rows, columns


def _weights(view: View, rows: range, columns: range) -> torch.Tensor:
    """Of stored queries: (queries, heads, K)."""
    places = [view.window_of(row, column) for row in rows for column in columns]
    windows, numbers = (torch.tensor(each) for each in zip(*places))
    return view.weights[windows, :, numbers]


def _described(view: AnyView, views: list[AnyView]) -> dict[str, Any]:
    if isinstance(view, Decay):
        gammas = np.exp(view.log_gamma).tolist()
        return dict(kind='decay', name=view.name, gammas=gammas, cell=view.cell, grid=view.grid)
    if isinstance(view, RowsThenColumns):
        places = [views.index(each) for each in (view.rows, view.columns)]
        return dict(kind='product', name=view.name, of=places)
    return dict(
        kind='keys',
        name=view.name,
        window=view.queries,
        cell=view.cell,
        grid=view.grid,
        keys=[_described_keys(keys) for keys in view.keys],
    )


def _described_keys(keys: Keys) -> dict[str, Any]:
    seen = keys.seen
    return dict(
        name=keys.name,
        around=keys.around,
        grid=keys.grid,
        cell=keys.cell,
        window=seen.window,
        rows=seen.rows,
        columns=seen.columns,
        wraps=seen.wraps,
    )
