"""Where the time of a backbone goes on a processor, by kinds of operations."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.profiler import profile

# Operations within these are the attention's, also its matrix products.
_ATTENTION = ('window_attention', 'scaled_dot_product', 'softmax')
_KINDS = {
    'matrix products': ('mm', 'addmm', 'bmm', 'baddbmm', 'linear', 'matmul'),
    'convolutions': ('convolution', 'conv2d', 'slow_conv2d_forward', 'thnn_conv2d'),
    'norms': ('layer_norm', 'batch_norm', 'group_norm'),
    'activations': ('gelu', 'silu', 'relu'),
    'copies': ('copy_', 'clone', 'cat', 'index_select', 'index_add', 'index', 'constant_pad_nd'),
    'sums and products': ('add', 'mul', 'addcmul', 'sub', 'div', 'sum', 'mean', 'where'),
    'memory': ('empty', 'zeros', 'fill_', 'zero_', 'new_empty', 'resize_', 'empty_strided'),
}
_PREFIXES = ('aten::', 'mkldnn_', '_', 'native_')
_SUFFIXES = ('_backward', '_overrideable', '_backward_out', '_out', '_')


@dataclass
class Profile:
    """What an operation of a model spends its time on.

    Attributes:
        seconds (float): Of one run.
        shares (dict[str, float]): Of that time, by kind of operation, largest first.
        gflops (float): Operations a second of the matrix products outside of attention, in
            thousand millions.
        fresh (float): Memory that the system handed out page by page in a run, in MB.
    """

    seconds: float
    shares: dict[str, float]
    gflops: float
    fresh: float


def profile_run(run: Callable[[], object], repeats: int = 3) -> Profile:
    """Profile the fastest of some runs of a function, after one that is not counted.

    Args:
        run (Callable): What is profiled.
        repeats (int): How many runs. Defaults to 3.

    Returns:
        Profile: The time is that of the fastest run without a profiler.
    """
    run()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    seconds = min(_seconds(run) for _ in range(repeats))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    # The first ones are slower by far: memory that the profiler takes is new, too.
    times, flops = min(
        (_times_of_kinds(run) for _ in range(repeats)), key=lambda found: sum(found[0].values())
    )
    total = sum(times.values())
    shares = {k: t / total for k, t in sorted(times.items(), key=lambda item: -item[1])}
    gflops = flops / times['matrix products'] / 1e3 if flops else 0.0  # from microseconds
    fresh = faults * resource.getpagesize() / repeats / 1e6
    return Profile(seconds, shares, gflops, fresh)


def _times_of_kinds(run: Callable[[], object]) -> tuple[dict[str, float], float]:
    """Microseconds of a run by kind of operation, and operations of its matrix products."""
    with profile(record_shapes=True, use_kineto=False) as found:
        run()
    events: Sequence[Any] = found.function_events or ()
    times: dict[str, float] = {}
    flops = 0.0
    for event in events:
        kind = kind_of(event)
        times[kind] = times.get(kind, 0.0) + event.self_cpu_time_total
        if kind == 'matrix products':
            flops += product_flops(event)
    return times, flops


def kind_of(event: Any) -> str:
    """The kind of an operation; its caller decides about those of attention."""
    caller = event
    while caller is not None:
        if any(word in caller.name for word in _ATTENTION):
            return 'attention'
        caller = caller.cpu_parent
    name = _short(event)
    for kind, names in _KINDS.items():
        if any(name == each or name == each + suffix for each in names for suffix in _SUFFIXES):
            if kind == 'convolutions' and is_depthwise(event):
                return 'depth-wise convolutions'
            return kind
    return 'others'


def product_flops(event: Any) -> int:
    """Operations of a matrix product, those in place included, which torch does not count."""
    name = _short(event).rstrip('_')
    if name in ('mm', 'bmm'):
        a, b = event.input_shapes[:2]
    elif name in ('addmm', 'baddbmm'):
        a, b = event.input_shapes[1:3]
    else:
        return 0  # what calls one of these
    return 2 * math.prod(a) * b[-1]


def _short(event: Any) -> str:
    name = event.name
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def is_depthwise(event: Any) -> bool:
    """Whether one of a convolution's inputs is a kernel for single channels."""
    return any(len(shape) == 4 and shape[1] == 1 and shape[0] > 1 for shape in event.input_shapes)


def product_rate(side: int = 2048) -> float:
    """Operations a second of a large matrix product in float32, in thousand millions."""
    a, b = torch.randn(2, side, side)
    out = torch.empty(side, side)
    least = min(_seconds(lambda: torch.mm(a, b, out=out)) for _ in range(20))
    return 2 * side**3 / least / 1e9


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
