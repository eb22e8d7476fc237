"""Where the time of a backbone goes on a processor, by kinds of operations."""

from __future__ import annotations

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
    """Profile some runs of a function, after one that is not counted.

    Args:
        run (Callable): What is profiled.
        repeats (int): How many runs. Defaults to 3.

    Returns:
        Profile: Means of a run.
    """
    run()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    seconds = (time.perf_counter() - start) / repeats
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    with profile(record_shapes=True, with_flops=True, use_kineto=False) as found:
        for _ in range(repeats):
            run()
    events: Sequence[Any] = found.function_events or ()
    times: dict[str, float] = {}
    flops = products = 0.0
    for event in events:
        kind = kind_of(event)
        times[kind] = times.get(kind, 0.0) + event.self_cpu_time_total
        if kind == 'matrix products':
            products += event.self_cpu_time_total
            flops += event.flops or 0
    total = sum(times.values())
    shares = {k: t / total for k, t in sorted(times.items(), key=lambda item: -item[1])}
    # From microseconds.
    gflops = flops / products / 1e3 if products else 0.0
    fresh = faults * resource.getpagesize() / repeats / 1e6
    return Profile(seconds, shares, gflops, fresh)


def kind_of(event: Any) -> str:
    """The kind of an operation; its caller decides about those of attention."""
    caller = event
    while caller is not None:
        if any(word in caller.name for word in _ATTENTION):
            return 'attention'
        caller = caller.cpu_parent
    name = event.name
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    for kind, names in _KINDS.items():
        if any(name == each or name == each + suffix for each in names for suffix in _SUFFIXES):
            if kind == 'convolutions' and is_depthwise(event):
                return 'depth-wise convolutions'
            return kind
    return 'others'


def is_depthwise(event: Any) -> bool:
    """Whether one of a convolution's inputs is a kernel for single channels."""
    return any(len(shape) == 4 and shape[1] == 1 and shape[0] > 1 for shape in event.input_shapes)


def product_rate(side: int = 2048) -> float:
    """Operations a second of a large matrix product in float32, in thousand millions."""
    a, b = torch.randn(2, side, side)
    out = torch.empty(side, side)
    least = min(_seconds(lambda: torch.mm(a, b, out=out)) for _ in range(5))
    return 2 * side**3 / least / 1e9


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
