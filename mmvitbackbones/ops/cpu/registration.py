"""Registering kernels as operators of torch, with what compilers and autograd need to know."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..backend import REGISTERS_GRADIENTS

NAMESPACE = 'mmvitbackbones'


def operator(schema: str, fake: Callable) -> Callable[[Callable], Callable]:
    """Register a function as an operator.

    Args:
        schema (str): Name, arguments and results, such as ``'double(Tensor x) -> Tensor'``.
        fake (Callable): Makes empty results of the right shapes, types and strides.

    Returns:
        Callable: A decorator; torch before 2.4, where no kernel runs, keeps the plain function.
    """
    name, arguments = schema.split('(', 1)

    def register(compute: Callable) -> Callable:
        if not REGISTERS_GRADIENTS:
            return compute
        made = torch.library.custom_op(
            f'{NAMESPACE}::{name}', mutates_args=(), device_types='cpu', schema=f'({arguments}'
        )(compute)
        made.register_fake(fake)
        return made

    return register


def gradient(of: Callable, keep: Callable, backward: Callable) -> None:
    """Register the gradient of an operator.

    Args:
        of (Callable): The operator.
        keep (Callable): Keeps what the backward pass takes: ``keep(ctx, inputs, output)``.
        backward (Callable): From the gradients of the results to those of the arguments.
    """
    if REGISTERS_GRADIENTS:
        of.register_autograd(backward, setup_context=keep)
