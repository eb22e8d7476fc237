"""Figures of results, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..seeing.drawing import bare

_NAMED = 160  # classes at most whose names fit
_NUMBERED = 25  # classes at most whose numbers fit


def confusion_figure(counts: np.ndarray, true: Sequence[str], found: Sequence[str]) -> Figure:
    """How often each class was taken for each other one.

    Args:
        counts (np.ndarray): (true classes, found classes).
        true (Sequence[str]): Names of the rows.
        found (Sequence[str]): Names of the columns.

    Returns:
        Figure: Shares of each row; with few classes as numbers, too.
    """
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(14.0, max(4.5, 0.45 * len(found) + 2))
    figure = Figure(figsize=(side + 0.8, side), layout='constrained')
    ax = figure.subplots()
    shown = ax.imshow(shares, cmap='Blues', vmin=0, vmax=100)
    size = 8 if len(found) <= _NUMBERED else 5
    few = -(-len(found) // _NAMED)
    ax.set_xticks(range(0, len(found), few), found[::few], rotation=90, fontsize=size)
    ax.set_yticks(range(0, len(true), few), true[::few], fontsize=size)
    ax.set_xlabel('found')
    ax.set_ylabel('true')
    if len(found) <= _NUMBERED:
        for (row, column), share in np.ndenumerate(shares):
            if counts[row, column]:
                colour = 'white' if share > 50 else 'black'
                ax.text(
                    column, row, f'{share:.0f}', ha='center', va='center', fontsize=7, color=colour
                )
    figure.colorbar(shown, fraction=0.046, pad=0.03).set_label('% of the true class')
    ax.set_title('Confusion matrix')
    return figure


def precision_recall_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], what: str
) -> Figure:
    """Precision against recall.

    Args:
        curves (Mapping[str, tuple]): Recall and precision of each curve.
        what (str): What the curves are of.

    Returns:
        Figure: A line for each curve.
    """
    figure = Figure(figsize=(6.5, 5), layout='constrained')
    ax = figure.subplots()
    for number, (name, (recall, precision)) in enumerate(curves.items()):
        ax.plot(recall, precision, label=name, linestyle=('-', '--', ':')[number // 10 % 3])
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall', ylabel='precision', title=what)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return figure


def pictures_figure(rows: Sequence[tuple[str, Sequence[np.ndarray]]], title: str) -> Figure:
    """Images of the data, a row each.

    Args:
        rows (Sequence[tuple]): What is said of an image, and its pictures, RGB.
        title (str): Of all.

    Returns:
        Figure: The truth on the left where there are two.
    """
    columns = max(len(pictures) for _, pictures in rows)
    across = 1 if columns > 1 else 3  # images in a line
    lines = -(-len(rows) // across)
    figure = Figure(figsize=(3.4 * columns * across, 3 * lines + 0.4), layout='constrained')
    figure.suptitle(title)
    axes = figure.subplots(lines, columns * across, squeeze=False).reshape(-1, columns)
    for line in axes:
        for ax in line:
            bare(ax)
            ax.axis('off')
    for line, (said, pictures) in zip(axes, rows):
        for ax, picture in zip(line, pictures):
            ax.imshow(picture)
        line[0].set_title(said, fontsize=8, loc='left')
    return figure
