"""Which implementation computes: the one choice, and the cache of index tensors.

Every function of this package has a plain body, its definition: torch's own calls, on any device,
in any type, differentiable, traceable and exportable. On a CPU a kernel of :mod:`.cpu` may replace
it, with equal results; on CUDA one of :mod:`.cuda`, for attention and where it is switched on.
Kernels are operators of ``torch.library``: a profiler shows them as
``mmvitbackbones::...``, a compiler sees one opaque call.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.autograd import forward_ad
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.modules import module as global_hooks
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

_Function = TypeVar('_Function', bound=Callable[..., Any])
_Result = TypeVar('_Result')

# Layers whose weights a kernel may take: what they compute is known.
_REPLACEABLE = (nn.Conv2d, nn.Dropout, nn.Linear)
_HOOKS = (
    '_forward_hooks',
    '_forward_pre_hooks',
    '_backward_hooks',
    '_backward_pre_hooks',
)
_GLOBAL_HOOKS = (
    '_global_forward_hooks',
    '_global_forward_pre_hooks',
    '_global_backward_hooks',
    '_global_backward_pre_hooks',
)
# torch's fused attention, on all devices.
_FUSED_ATTENTION = [
    getattr(torch.ops.aten, f'_scaled_dot_product_{name}').default
    for name in (
        'cudnn_attention',
        'efficient_attention',
        'flash_attention',
        'flash_attention_for_cpu',
    )
]

SWITCH = 'MMVIT_CUDA_KERNELS'  # an environment variable: reaches all tools and their processes
_HEAD_WIDTHS = range(16, 65)  # of the kernel for CUDA

_entered = 0  # how many ``with plain():``
_estimated = 0  # how many ``with estimated():``


def _is_switched_on(value: str) -> bool:
    if value not in ('', '0', '1'):
        raise ValueError(f'{SWITCH} must be 1 (kernels compute on CUDA) or 0, got {value!r}')
    return value == '1'


_cuda_kernels = _is_switched_on(os.environ.get(SWITCH, ''))


def has_triton() -> bool:
    """Whether Triton is there, in a version that kernels are tested with."""
    try:
        version = importlib.metadata.version('triton')
    except importlib.metadata.PackageNotFoundError:
        return False
    # Older ones take no tuples of tensors.
    return [int(n) for n in re.findall(r'\d+', version)[:2]] >= [3, 7]


_has_triton = has_triton()


class plain(AbstractContextManager[None]):
    """Let the plain bodies compute, in all threads, instead of kernels.

    It may be entered several times, as second derivatives do with checkpoints.

    Example:
        >>> with plain():
        ...     maps = backbone(images)
    """

    def __enter__(self) -> None:
        global _entered
        _entered += 1

    def __exit__(self, *exception: object) -> None:
        global _entered
        _entered -= 1


class estimated(AbstractContextManager[None]):
    """Let fake tensors on CUDA go through the kernel: memory is estimated without a GPU.

    Nothing computes then, so it needs neither Triton nor its switch.
    """

    def __enter__(self) -> None:
        global _estimated
        _estimated += 1

    def __exit__(self, *exception: object) -> None:
        global _estimated
        _estimated -= 1


def recomputed(compute: Callable[..., _Result], *args: object, random: bool = True) -> _Result:
    """Call a function of which nothing is kept: the backward pass calls it again.

    A compiled model keeps the results of fused attention.

    Args:
        compute (Callable): The function.
        *args (object): Its arguments.
        random (bool): Whether it draws random numbers. Defaults to True.

    Returns:
        Any: What it returns.
    """
    options: dict[str, Any] = dict(use_reentrant=False, preserve_rng_state=random)
    if torch.compiler.is_compiling():
        # Inductor computes again what may be random, fused attention too, with arguments in any
        # order in memory, which fused attention reads wrong.
        options['context_fn'] = functools.partial(
            create_selective_checkpoint_contexts, _FUSED_ATTENTION
        )
    else:
        options['context_fn'] = _same_again
    return checkpoint(compute, *args, **options)


def _same_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Where a plain body computed, it has to compute again: a kernel keeps other tensors."""
    return nullcontext(), plain() if _entered or _is_seen() else nullcontext()


def why_plain(
    x: Tensor, *layers: nn.Module | None, weights: bool = False, attention: bool = False
) -> str | None:
    """Say why the plain body computes.

    Args:
        x (Tensor): What it computes with; queries, (..., heads, d), where it is attention.
        *layers (nn.Module, optional): Layers that a kernel would replace, or call in parts.
        weights (bool): Whether a kernel would multiply by weights itself. Defaults to False.
        attention (bool): Whether it is attention, which has a kernel on CUDA, too. Defaults to
            False.

    Returns:
        str | None: The reason; None where a kernel computes.
    """
    if _entered:
        return 'plain() is entered'
    if x.device.type == 'cuda' and attention:
        if reason := _why_not_on_cuda(x):
            return reason
    elif x.device.type != 'cpu':
        return f'there is no kernel for {x.device.type}' + (
            ' but that of attention' if x.device.type == 'cuda' else ''
        )
    if torch.compiler.is_compiling():
        if _exports():
            return 'the model is being exported'
    elif reason := _observer(x):
        return reason
    if weights and torch.is_autocast_enabled('cpu'):
        return 'autocast casts the weights'
    for layer in layers:
        if layer is not None and (reason := _change(layer)):
            return f'{type(layer).__name__} {reason}'
    return None


def _why_not_on_cuda(queries: Tensor) -> str | None:
    if not _estimated:
        if not _cuda_kernels:
            return f'kernels for cuda are off: set {SWITCH}=1 in the environment'
        if not _has_triton:
            return 'Triton is older than 3.7, or not there: it comes with torch 2.12 for CUDA'
    if queries.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f'the kernel for cuda computes in no {str(queries.dtype).removeprefix("torch.")}'
    if queries.shape[-1] not in _HEAD_WIDTHS:
        least, most = _HEAD_WIDTHS[0], _HEAD_WIDTHS[-1]
        return f'heads are {queries.shape[-1]} wide, not {least} to {most}'
    return None


def _observer(x: Tensor) -> str | None:
    """Name the tool that has to see torch's own calls, if there is one."""
    if torch.jit.is_tracing():
        return 'the model is being traced'
    if _is_transformed():
        return 'torch.func transforms the model'
    if forward_ad._current_level >= 0:
        return 'forward-mode derivatives are computed'
    if _is_seen():
        return 'a mode, such as FakeTensorMode or FlopCounterMode, sees every call'
    if _estimated:
        return None
    if isinstance(x, FakeTensor):
        return 'the tensor is fake'
    if type(x) not in (Tensor, nn.Parameter):
        return f'{type(x).__name__} may compute in another way than Tensor'
    return None


def records_one_graph() -> bool:
    """Whether an exporter, a tracer or a transformation of ``torch.func`` looks on.

    They take no loops over parts, whose number depends on the size, and no checkpoints.
    """
    if torch.compiler.is_compiling():
        return _exports()
    return torch.jit.is_tracing() or _is_transformed()


def _exports() -> bool:
    # Torch before 2.7 does not tell an export from a compilation.
    return getattr(torch.compiler, 'is_exporting', lambda: True)()


def _is_transformed() -> bool:
    return torch._C._functorch.peek_interpreter_stack() is not None


def known(condition: bool | torch.SymBool) -> bool:
    """Whether a comparison of sizes is known to hold.

    A graph for many sizes leaves some open: asking Python whether these are equal would bind the
    graph to the example's.
    """
    if isinstance(condition, torch.SymBool) or torch.compiler.is_compiling():
        return statically_known_true(condition)
    return bool(condition)


def _is_seen() -> bool:
    """Whether a mode looks on that has to see torch's own calls."""
    return is_observed() and not _estimated


def is_observed() -> bool:
    """Whether a dispatch or function mode sees every call of torch."""
    modes = _get_current_dispatch_mode(), *_get_current_function_mode_stack()
    return any(type(mode) not in (type(None), DeviceContext) for mode in modes)


def _change(layer: nn.Module) -> str | None:
    """How a layer differs from what torch defines, if it does."""
    if type(layer) not in _REPLACEABLE:
        return 'is none that a kernel replaces'  # quantised, parametrised, wrapped
    if 'forward' in vars(layer):
        return 'has a forward of its own'
    if any(getattr(layer, name) for name in _HOOKS):
        return 'has hooks'
    if any(getattr(global_hooks, name) for name in _GLOBAL_HOOKS):
        return 'is seen by hooks on all modules'
    if isinstance(layer, nn.Dropout):
        return 'drops' if layer.training and layer.p else None
    if isinstance(layer, nn.Conv2d) and not _is_depthwise(layer):
        return 'is no depth-wise 3x3 convolution'
    if layer.bias is None:
        return 'has no bias'
    if any(type(p) not in (Tensor, nn.Parameter) for p in (layer.weight, layer.bias)):
        return 'has weights of another kind'
    return None


def _is_depthwise(conv: nn.Conv2d) -> bool:
    """Whether it is a depth-wise 3x3 convolution that keeps the size, with zeros beyond it."""
    channels = conv.in_channels, conv.out_channels
    sizes = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    return (
        channels == (conv.groups, conv.groups)
        and sizes == ((3, 3), (1, 1), (1, 1), (1, 1))
        and conv.padding_mode == 'zeros'
    )


def cached(make: _Function) -> _Function:
    """Keep the index tensors that a function makes of its arguments.

    Only real ones are kept, also when made in inference mode: what a compiler, an exporter, a
    tracer or a dispatch mode asks for is made anew, as fake tensors would outlive their mode.

    Args:
        make (Callable): Takes hashable arguments, such as sizes and a device; its results must
            not be changed in place.

    Returns:
        Callable: As ``make``.
    """
    kept = functools.lru_cache(maxsize=64)(torch.inference_mode(False)(make))

    @functools.wraps(make)
    def get(*args: Any) -> Any:
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_observed():
            return make(*args)
        return kept(*args)

    return cast(_Function, get)
