"""Tensors that can be weights, and those that cannot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def check_kinds(state: Mapping[Any, Any], source: str) -> None:
    """Check names and kinds of what a file holds, whatever it is for.

    Args:
        state (Mapping): Tensors, and perhaps other things, by their names.
        source (str): The file, for messages.

    Raises:
        ValueError: If a name is no string, or a tensor without values, sparse, quantised or
            complex.
    """
    for name, value in state.items():
        if not isinstance(name, str):
            raise ValueError(f'{source} has {name!r} as the name of a tensor: names are strings')
        if not isinstance(value, Tensor):
            continue
        kind = (
            'has no values, as it is on the meta device'
            if value.is_meta
            else 'is sparse'
            if value.layout is not torch.strided
            else 'is quantised'
            if value.is_quantized
            else 'is complex'
            if value.is_complex()
            else ''
        )
        if kind:
            raise ValueError(f'{source}: {name} {kind}: such a tensor is no weight')


def check_values(state: Mapping[str, Tensor], target: Mapping[str, Tensor], source: str) -> None:
    """Check values before they are copied.

    Args:
        state (Mapping[str, Tensor]): By the model's names.
        target (Mapping[str, Tensor]): The model's state dict; what it lacks is not looked at.
        source (str): The file, for messages.

    Raises:
        ValueError: If numbers are of another kind than the model's, not finite, or too large for
            it.
    """
    for name, tensor in state.items():
        if name not in target:
            continue
        ours = target[name]
        if _kind(tensor) != _kind(ours):
            raise ValueError(
                f'{source}: {name} holds {tensor.dtype}, the model {ours.dtype}: are these weights?'
            )
        if ours.is_floating_point() and not torch.isfinite(tensor.to(ours.dtype)).all():
            raise ValueError(
                f'{source}: {name} holds values that are not finite in {ours.dtype}: the training '
                'that it comes from has diverged, or the file is damaged'
            )


def _kind(tensor: Tensor) -> str:
    if tensor.dtype is torch.bool:
        return 'bool'
    return 'float' if tensor.is_floating_point() else 'integer'
