"""The kernels for CUDA against plain bodies, on the attention of all four papers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import plain
from ..ops.attention import _attend, _valid, attend_sequences
from ..ops.cuda import attend_in_place
from ..ops.manhattan import attend_all, attend_columns, attend_rows, log_gammas
from ..ops.windows import Neighbourhood, pad_to_multiple

# Of the largest value: what products in a type may be off by. Half types are rounded after each of
# several products.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}


@dataclass(frozen=True)
class Case:
    """One attention, as a kernel and as its plain body compute it.

    Attributes:
        name (str): Whose it is.
        inputs (tuple[Tensor, ...]): What gets gradients; biases are in float32 at least.
        kernel (Callable): From the inputs to (B, H, W, heads * d).
        plain (Callable): The same, called under ``plain()``.
    """

    name: str
    inputs: tuple[Tensor, ...]
    kernel: Callable[..., Tensor]
    plain: Callable[..., Tensor]


def cases(
    size: Sequence[int],
    device: torch.device,
    samples: int = 1,
    heads: int = 2,
    dims: int = 32,
    window: int = 7,
) -> Iterator[Case]:
    """Draw attention of all four papers on a map, in float64.

    Args:
        size (Sequence[int]): Height and width of the map in tokens; windows need not divide them.
        device (torch.device): Where the tensors are.
        samples (int): Of the batch. Defaults to 1.
        heads (int): Attention heads. Defaults to 2.
        dims (int): Channels of a head. Defaults to 32.
        window (int): Side of a window. Defaults to 7.
    """
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float64)

    own, tokens = (window, window), window**2
    half, whole = (window // 2,) * 2, own
    local = pad_to_multiple(draw(samples, *size, 3, heads, dims), *own)
    rows, columns = local.shape[1] // window, local.shape[2] // window
    full = rows * window, columns * window

    # RegionViT: a regional token and its window, padding masked.
    on_map = Neighbourhood(own).on_map(size, device)
    valid = torch.nn.functional.pad(on_map, (1, 0), value=True)
    bias = draw(heads, 1 + tokens, 1 + tokens)
    sequences = draw(samples * rows * columns, 1 + tokens, 3, heads, dims)
    row = [Neighbourhood((1, 1 + tokens))]
    yield Case(
        'RegionViT',
        (sequences, bias),
        lambda x, bias, valid=valid: attend_in_place(
            [x.unflatten(0, (samples, -1)).flatten(1, 2)[:, None]], row, bias, valid
        ).view(*x.shape[:2], -1),
        lambda x, bias, valid=valid: attend_sequences(x, bias, valid),
    )

    # Focal: a window with its surroundings, wrapping round, and a square of pooled tokens.
    fine = Neighbourhood(own, half, half, wraps=True)
    coarse = Neighbourhood((1, 1), (min(2, rows - 1),) * 2, (min(2, columns - 1),) * 2)
    pooled = draw(samples, rows, columns, 3, heads, dims)
    yield _windows('Focal', [local, pooled], [fine, coarse], [full, (rows, columns)], draw)

    # ViL: a chunk, the eight around it, and a global token, of which each chunk has a copy.
    around = [Neighbourhood(own, whole, whole), Neighbourhood((1, 1))]
    yield _windows('ViL', [local, pooled], around, [tuple(size), (rows, columns)], draw)
    # Of a training with random shifts: of the eight chunks one, of which border windows see none.
    beside = [Neighbourhood((window, window)), Neighbourhood(own, (window, -window), (0, 0))]
    yield _windows('ViL, one chunk', [local, local.clone()], beside[::-1], [tuple(size)] * 2, draw)

    # RMT: rows, columns, and the whole map, with a decay by the Manhattan distance.
    q, k, v = (draw(samples, *size, heads, dims) for _ in range(3))
    log_gamma = log_gammas(heads, (1, 4))
    decay = torch.tensor(log_gamma, device=device, dtype=torch.float32)

    def lines(q: Tensor, k: Tensor, v: Tensor, height: int, width: int) -> Tensor:
        seen = [Neighbourhood((height, width))]
        return attend_in_place([q, k, v], seen, decay=decay).view_as(q)

    def turned(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return lines(q, k, v, 1, size[0]).transpose(1, 2)

    forms: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
        'rows': (lambda q, k, v: lines(q, k, v, 1, size[1]), attend_rows),
        'columns': (turned, attend_columns),
        'whole map': (lambda q, k, v: lines(q, k, v, *size), attend_all),
    }
    for name, (kernel, body) in forms.items():
        yield Case(
            f'RMT, {name}',
            (q, k, v),
            lambda q, k, v, kernel=kernel: kernel(q, k, v).flatten(3),
            lambda q, k, v, body=body: body(q, k, v, log_gamma, False).flatten(3),
        )


def _windows(
    name: str,
    maps: Sequence[Tensor],
    seen: Sequence[Neighbourhood],
    sizes: Sequence[tuple[int, ...]],
    draw: Callable[..., Tensor],
) -> Case:
    seen, valid = tuple(seen), None
    if not all(one.sees_only_the_map(size) for one, size in zip(seen, sizes)):
        valid = _valid(seen, tuple(sizes), maps[0].device)
    keys = sum(one.size[0] * one.size[1] for one in seen)
    tokens = seen[0].window[0] * seen[0].window[1]
    return Case(
        name,
        (*maps, draw(maps[0].shape[4], tokens, keys)),
        lambda *x: attend_in_place(x[:-1], seen, x[-1], valid),
        lambda *x: _attend(x[:-1], seen, x[-1], valid),
    )


def in_type(case: Case, dtype: torch.dtype) -> list[Tensor]:
    """The inputs in a type, but biases in float32 at least, as parameters are."""
    return [
        x.to(torch.promote_types(dtype, torch.float32) if x.dim() == 3 else dtype)
        .detach()
        .requires_grad_()
        for x in case.inputs
    ]


def errors(case: Case, dtype: torch.dtype) -> list[float]:
    """How far a kernel is from the plain body in float64.

    Args:
        case (Case): What is computed.
        dtype (torch.dtype): The type in which the kernel computes.

    Returns:
        list[float]: Of the output, then of each input's gradient: the largest difference, of the
        largest value.
    """
    inputs = in_type(case, dtype)
    found = case.kernel(*inputs)
    slope = torch.randn_like(found)
    results = [found, *torch.autograd.grad(found, inputs, slope)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    with plain():
        wanted = case.plain(*exact)
        expected = [wanted, *torch.autograd.grad(wanted, exact, slope.double())]
    return [
        ((ours.double() - theirs).abs().max() / theirs.abs().max()).item()
        for ours, theirs in zip(results, expected)
    ]


def seconds(case: Case, dtype: torch.dtype, kernel: bool, repeats: int = 5) -> float:
    """Time forward and backward pass, the shortest of some.

    Args:
        case (Case): What is computed.
        dtype (torch.dtype): In which type.
        kernel (bool): By the kernel, or by the plain body.
        repeats (int): Runs that are measured, after two others. Defaults to 5.
    """
    inputs = in_type(case, dtype)
    shortest = float('inf')
    for turn in range(-2, repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        if kernel:
            found = case.kernel(*inputs)
        else:
            with plain():
                found = case.plain(*inputs)
        torch.autograd.grad(found, inputs, torch.ones_like(found))
        torch.cuda.synchronize()
        if turn >= 0:
            shortest = min(shortest, time.perf_counter() - start)
    return shortest
