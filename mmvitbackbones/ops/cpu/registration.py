"""Registering kernels as operators of torch, with what compilers and autograd need to know."""

from __future__ import annotations

from collections.abc import Callable

import torch

NAMESPACE = 'mmvitbackbones'


def operator(schema: str, fake: Callable) -> Callable[[Callable], Callable]:
    """Register a function as an operator.

    Args:
        schema (str): Name, arguments and results, such as ``'double(Tensor x) -> Tensor'``.
        fake (Callable): Makes empty results of the right shapes, types and strides.

    Returns:
        Callable: A decorator that returns the operator.
    """
    name, arguments = schema.split('(', 1)
    qualified = f'{NAMESPACE}::{name}'

    def register(compute: Callable) -> Callable:
        # Not torch.library.custom_op, whose first call imports torch's compiler: 25 MB.
        tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
        torch.library.define(qualified, f'({arguments}', tags=tags)
        torch.library.impl(qualified, 'CPU', compute)
        torch.library.register_fake(qualified, fake)
        return getattr(getattr(torch.ops, NAMESPACE), name).default

    return register


def gradient(of: Callable, keep: Callable, backward: Callable, by: Callable) -> None:
    """Register the gradient of an operator, which itself has none.

    Args:
        of (Callable): The operator.
        keep (Callable): Keeps what the backward pass takes: ``keep(ctx, inputs, output)``.
        backward (Callable): From the gradients of the results to those of the arguments.
        by (Callable): The operator that ``backward`` calls.
    """

    def refuse(ctx: object, *grads: object) -> None:
        raise RuntimeError(
            f'{by} has no gradient of its own: take second derivatives under '
            'mmvitbackbones.ops.plain() and torch.nn.attention.sdpa_kernel(SDPBackend.MATH)'
        )

    torch.library.register_autograd(of, backward, setup_context=keep)
    torch.library.register_autograd(by, refuse)
