"""A computation part by part, each computed again in the backward pass: any device.

Temporary tensors, such as the bias of pairs of tokens, exist for one part at a time: 4,200 tokens
have 17 million pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from .backend import known, recomputed, records_one_graph, why_plain
from .watching import is_watched

# Bytes of scores computed at a time on a CPU: small enough to stay in the cache.
_CHUNK_BYTES = 16 * 2**20
# Tokens at a time on a CPU where nothing is kept for a backward pass: fresh memory for the
# projections of a whole map costs as much time as computing them.
_GROUP = 2**14


def in_parts(
    compute: Callable[..., Tensor],
    shared: Sequence[Tensor],
    parts: Iterable[slice],
    total: int,
    dim: int,
    random: bool = False,
) -> Tensor:
    """Concatenate what is computed of each part.

    Args:
        compute (Callable): Computes a part, given its slice and what is ``shared``.
        shared (Sequence[Tensor]): What all parts read as a whole, such as keys: their gradients
            are summed over the parts, in float32 at least.
        parts (Iterable[slice]): The parts, one after the other.
        total (int): Where the last part ends. Exporters, tracers and transformations of
            ``torch.func`` see a single part that is as long, and so does who watches the weights.
        dim (int): Dimension of the results along which the parts follow each other.
        random (bool): Whether ``compute`` draws random numbers. Defaults to False.

    Returns:
        Tensor: The results of all parts.
    """
    if records_one_graph() or is_watched() or not total:
        return compute(slice(0, total), *shared)
    if not torch.is_grad_enabled():
        # A view of a parameter requires grad even under no_grad, and fused attention refuses it.
        shared = [x.detach() for x in shared]
        return torch.cat([compute(part, *shared) for part in parts], dim)
    dtypes = [x.dtype for x in shared]
    shared = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in shared]

    def compute_part(part: slice, *shared: Tensor) -> Tensor:
        return compute(part, *(x.to(dtype) for x, dtype in zip(shared, dtypes)))

    return torch.cat(
        [recomputed(compute_part, part, *shared, random=random) for part in parts], dim
    )


def at_a_time(scores: int, like: Tensor) -> int:
    """Number of items per part, given the scores of one item."""
    # What a GPU does at a time should be more than a CPU's cache holds.
    memory = _CHUNK_BYTES * (1 if like.device.type == 'cpu' else 8)
    return max(1, memory // max(1, scores * like.element_size()))


def slices(total: int, count: int) -> Iterator[slice]:
    """Cut ``total`` items into parts of up to ``count``."""
    for first in range(0, total, count):
        yield slice(first, min(first + count, total))


def token_slices(height: int, width: int, count: int) -> Iterator[slice]:
    """Cut a map's tokens into rows of together up to ``count`` tokens, or into parts of rows."""
    rows = min(height, count // width)
    if rows:
        yield from (slice(s.start * width, s.stop * width) for s in slices(height, rows))
        return
    for row in range(height):
        for part in slices(width, count):
            yield slice(row * width + part.start, row * width + part.stop)


def place_on_map(tokens: slice, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of tokens numbered in row-major order: some rows, or a part of one."""
    if known(tokens.stop - tokens.start == height * width):
        return slice(0, height), slice(0, width)
    first, last = tokens.start // width, (tokens.stop - 1) // width + 1
    return slice(first, last), slice(tokens.start - first * width, tokens.stop - (last - 1) * width)


def in_groups(
    compute: Callable[[Tensor, Tensor | None], Tensor],
    x: Tensor,
    valid: Tensor | None,
    *layers: nn.Module,
) -> Tensor:
    """Compute sequences a few at a time on a CPU, where nothing is kept for a backward pass.

    Args:
        compute (Callable): From sequences, and which of their tokens are valid, to sequences.
        x (Tensor): (B, N, C).
        valid (Tensor, optional): Boolean, (windows, N), where ``windows`` divides B.
        *layers (nn.Module): What computes; where a layer is not torch's own one, as with hooks,
            it is called once.

    Returns:
        Tensor: (B, N, C).
    """
    if torch.is_grad_enabled() or why_plain(x, *layers) is not None:
        return compute(x, valid)
    size = max(1, _GROUP // max(1, x.shape[1]))
    if x.shape[0] <= size:
        return compute(x, valid)
    if valid is not None:
        valid = valid.repeat(x.shape[0] // valid.shape[0], 1)
    parts = slices(x.shape[0], size)
    return torch.cat([compute(x[i], None if valid is None else valid[i]) for i in parts])
