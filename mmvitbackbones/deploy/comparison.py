"""Exported files against the model they were made of."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from .files import Runner
from .model import OutputModel


@dataclass(frozen=True)
class Comparison:
    """What a file gives, and takes, beside its model.

    Attributes:
        difference (float): The largest one of an output from the model's, over the standard
            deviation of that output; NaN where an output has one.
        seconds (float): The file's; the least of some runs.
        model_seconds (float): The model's.
    """

    difference: float
    seconds: float
    model_seconds: float


def compare(run: Runner, model: OutputModel, images: Tensor, repeats: int = 3) -> Comparison:
    """Run a file and its model on the same images in turn.

    Args:
        run (Runner): Of :func:`load_runner`.
        model (OutputModel): What the file was made of.
        images (Tensor): (B, C, H, W), float32.
        repeats (int): Runs that are timed. Defaults to 3.

    Returns:
        Comparison: What they differ by, and their times.
    """
    array = images.numpy()
    times: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        ours, theirs = run(array), model(images)
        for _ in range(repeats):
            for taken, call in zip(times, (lambda: run(array), lambda: model(images))):
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)
    differences = [
        (torch.from_numpy(one) - other).abs().max() / _scale(other)
        for one, other in zip(ours, theirs, strict=True)
    ]
    # Python's max() would pass over a NaN.
    return Comparison(torch.stack(differences).max().item(), min(times[0]), min(times[1]))


def _scale(output: Tensor) -> Tensor:
    """Standard deviation of an output; of a constant one its value."""
    scale = output.std(correction=0)
    return scale if scale > 0 else output.abs().max().clamp_min(torch.finfo(output.dtype).tiny)
