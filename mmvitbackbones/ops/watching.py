"""Attention weights handed out as they are computed, to whoever wants to see them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .backend import plain

_watchers: list[Callable[[Tensor], object]] = []


class watching(plain):
    """Let the plain bodies compute, and hand out the weights of each attention.

    Weights times values are what the model goes on with: there is no second attention.

    Args:
        see (Callable[[Tensor], object]): Called with the weights of one attention after the other,
            (B, heads, N, K) each, with B, N and K as :func:`.attention.softmax_attention` has
            them: those that multiply the values, so with what multiplies a softmax.

    Example:
        >>> with watching(lambda weights: print(weights.shape)):
        ...     maps = backbone(images)
    """

    def __init__(self, see: Callable[[Tensor], object]) -> None:
        self.see = see

    def __enter__(self) -> None:
        super().__enter__()
        _watchers.append(self.see)

    def __exit__(self, *exception: object) -> None:
        _watchers.remove(self.see)
        super().__exit__(*exception)


def is_watched() -> bool:
    """Whether someone wants to see the weights, whole, so not in parts and not by torch's own."""
    return bool(_watchers)


def shown(weights: Tensor) -> Tensor:
    """Hand weights out; return them."""
    for see in _watchers:
        see(weights.detach())
    return weights
