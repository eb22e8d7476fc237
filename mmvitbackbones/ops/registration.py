"""Registering kernels as operators of torch, with what compilers and autograd need to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch._ops import OpOverload

_Arguments = ParamSpec('_Arguments')
_Result = TypeVar('_Result')

Context = Any  # what autograd keeps between the passes; torch has no one type for it
NAMESPACE = 'mmvitbackbones'


def operator(
    schema: str, fake: Callable[_Arguments, _Result], key: str = 'CPU'
) -> Callable[[Callable[_Arguments, _Result]], OpOverload[_Arguments, _Result]]:
    """Register a function as an operator.

    Args:
        schema (str): Name, arguments and results, such as ``'double(Tensor x) -> Tensor'``.
        fake (Callable): Makes empty results of the right shapes, types and strides, from the
            arguments of the operator.
        key (str): Dispatch key of the tensors that the function computes with. Defaults to 'CPU'.

    Returns:
        Callable: A decorator that returns the operator.
    """
    name, arguments = schema.split('(', 1)
    qualified = f'{NAMESPACE}::{name}'

    def register(compute: Callable[_Arguments, _Result]) -> OpOverload[_Arguments, _Result]:
        # Not torch.library.custom_op, whose first call imports torch's compiler: 25 MB.
        tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
        torch.library.define(qualified, f'({arguments}', tags=tags)
        torch.library.impl(qualified, key, compute)
        torch.library.register_fake(qualified, fake)
        return getattr(getattr(torch.ops, NAMESPACE), name).default

    return register


def gradient(
    of: OpOverload[..., _Result],
    keep: Callable[[Context, tuple[Any, ...], _Result], None],
    backward: Callable[..., Any],
    by: OpOverload[..., Any],
) -> None:
    """Register the gradient of an operator, which itself has none.

    Args:
        of (OpOverload): The operator.
        keep (Callable): Keeps what the backward pass takes: ``keep(ctx, inputs, output)``.
        backward (Callable): From the gradients of the results to those of the arguments.
        by (OpOverload): The operator that ``backward`` calls.
    """

    def refuse(ctx: Context, *grads: object) -> None:
        raise RuntimeError(
            f'{by} has no gradient of its own: take second derivatives under '
            'mmvitbackbones.ops.plain() and torch.nn.attention.sdpa_kernel(SDPBackend.MATH)'
        )

    torch.library.register_autograd(of, backward, setup_context=keep)
    torch.library.register_autograd(by, refuse)
