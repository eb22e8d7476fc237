"""Peak memory of a model on CUDA, estimated without a GPU.

Fake tensors on ``cuda`` have shapes, types, devices and lives, but no values: what lives at a time
is added up, in blocks of 512 bytes as torch's allocator hands them out. A mix of devices is an
error, as on a GPU. Not seen are what libraries and kernels take for themselves, the holes between
blocks, and what torch itself takes on a card, some hundreds of MiB.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from ..ops.backend import estimated

_DEVICE = torch.device('cuda:0')
_BLOCK = 512  # bytes

# What torch.autocast('cuda') does, of what backbones call: computed in the half type, in float32,
# or in the widest type of the arguments.
_IN_HALF = {
    'linear',
    'conv2d',
    'matmul',
    '__matmul__',
    'bmm',
    'einsum',
    _SDPA := F.scaled_dot_product_attention.__name__,
}
_IN_FULL = {'layer_norm', 'group_norm', 'softmax', 'exp', 'log', 'pow', 'sum', 'norm'}
_IN_WIDEST = {'addcmul', 'cat', 'stack'}


def peak_memory(
    config: Mapping[str, Any],
    shape: Sequence[int],
    batch: int,
    dtype: torch.dtype,
    train: bool,
    kernels: bool,
) -> int:
    """Estimate the peak memory of a backbone, its weights and gradients included.

    Args:
        config (Mapping): Of the backbone, with its ``type``.
        shape (Sequence[int]): Height and width of the images in pixels.
        batch (int): Number of images.
        dtype (torch.dtype): float32, or the half type of autocast.
        train (bool): Forward and backward pass in training mode; or the forward pass alone,
            without gradients.
        kernels (bool): Whether kernels for CUDA compute where there are any.

    Returns:
        int: Bytes.
    """
    # Built for real: constructors read numbers from tensors.
    model: nn.Module = MODELS.build(dict(config))
    model.train(train)
    live = _Live()
    with _autograd_without_a_driver(), FakeTensorMode(allow_non_fake_inputs=True):
        _move(model)
        image = torch.empty(batch, 3, *shape, device=_DEVICE)
        live.add([*model.parameters(), *model.buffers(), image])
        with live, estimated() if kernels else nullcontext():
            # In the backward pass, too: checkpoints compute parts of the forward pass again.
            with torch.set_grad_enabled(train), _AsOnCuda(dtype) as on_cuda:
                maps = model(image)
                on_cuda.forget()
                if train:
                    # As the gradients of a head: those of all maps are there at once.
                    # Not by torch.autograd.backward, within which modes are off.
                    slopes = tuple(torch.ones_like(x) for x in maps)
                    _engine_run_backward(tuple(maps), slopes, False, False, (), True, True)
    return live.peak


def _move(model: nn.Module) -> None:
    """Let all parameters and buffers be fake ones on CUDA."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype, device=_DEVICE)
                module._parameters[name] = nn.Parameter(fake, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(
                    buffer.shape, dtype=buffer.dtype, device=_DEVICE
                )


@contextmanager
def _autograd_without_a_driver() -> Iterator[None]:
    """Let C++ take fake tensors on CUDA for ``meta``: autograd would ask a driver for streams.

    Python, which decides what computes, is told the truth.
    """
    question = torch.ops.prim.device.default
    handlers: dict[Any, Callable[..., Any]] = fake_tensor._DISPATCH_META_HANDLERS
    handler, dispatch = handlers[question], vars(FakeTensor)['__torch_dispatch__']

    def answer(args: Sequence[Any]) -> torch.device:
        found: torch.device = handler(args)
        return torch.device('meta') if found.type == 'cuda' else found

    def ask(
        cls: type,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is question:
            return answer(args)
        return dispatch.__func__(cls, func, types, args, kwargs)

    handlers[question] = answer
    type.__setattr__(FakeTensor, '__torch_dispatch__', classmethod(ask))
    try:
        yield
    finally:
        handlers[question] = handler
        type.__setattr__(FakeTensor, '__torch_dispatch__', dispatch)


class _Live(TorchDispatchMode):
    """Adds up the memory that lives at a time.

    Attributes:
        peak (int): Most bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get('device') is not None and torch.device(kwargs['device']).type == 'meta':
            kwargs['device'] = _DEVICE  # C++ makes it beside a tensor that it takes for one
        result = func(*args, **kwargs)
        self.add(tree_flatten(result)[0])
        return result

    def add(self, tensors: Sequence[Any]) -> None:
        """Count what is new among tensors on CUDA, until it is freed."""
        for x in tensors:
            if not isinstance(x, Tensor) or x.device.type != 'cuda':
                continue
            storage = x.untyped_storage()
            key, size = storage._cdata, -(-storage.nbytes() // _BLOCK) * _BLOCK
            if key not in self._known:
                self._known.add(key)
                self.now += size
                weakref.finalize(storage, self._free, key, size)
        self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _AsOnCuda(TorchFunctionMode):
    """Autocast, and the choice of fused attention: torch's own ask for a GPU.

    Args:
        dtype (torch.dtype): The half type; float32: no autocast.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self._parameters: dict[int, Tensor] = {}  # cast once, as autocast does

    def forget(self) -> None:
        """Free the casts of parameters, as at the end of autocast."""
        self._parameters.clear()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name, kwargs = func.__name__, dict(kwargs or {})
        dtype = self._type_of(name, args, kwargs) if self.dtype != torch.float32 else None
        if dtype is not None:
            args, kwargs = tree_map(lambda x: self._cast(x, dtype), (tuple(args), kwargs))
        return _fused_attention(*args, **kwargs) if name == _SDPA else func(*args, **kwargs)

    def _type_of(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> torch.dtype | None:
        if name in _IN_HALF:
            return self.dtype
        if name in _IN_FULL and kwargs.get('dtype') is None:
            return torch.float32
        if name in _IN_WIDEST:
            tensors = [x for x in tree_flatten(args)[0] if isinstance(x, Tensor)]
            floats = [x.dtype for x in tensors if x.is_floating_point()]
            return torch.float32 if torch.float32 in floats else None
        return None

    def _cast(self, x: Any, dtype: torch.dtype) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.dtype == dtype:
            return x
        if not isinstance(x, nn.Parameter):
            return x.to(dtype)
        if id(x) not in self._parameters:
            self._parameters[id(x)] = x.to(dtype)
        return self._parameters[id(x)]


def _fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention by the kernel that torch takes on CUDA, cuDNN's left out.

    Without a mask flash attention computes half types, else the memory-efficient kernel does,
    whose mask has rows of a length that is a multiple of 16.
    """
    half = q.dtype.itemsize == 2
    aten = torch.ops.aten
    if any(x.shape[-1] % (8 if half else 4) for x in (q, v)):
        return aten._scaled_dot_product_attention_math(
            q, k, v, attn_mask, dropout_p, is_causal, scale=scale
        )[0]
    if attn_mask is None and half:
        return aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, scale=scale)[
            0
        ]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            zeros = torch.zeros_like(attn_mask, dtype=q.dtype)
            attn_mask = zeros.masked_fill_(~attn_mask, float('-inf'))
        length = attn_mask.shape[-1]
        if length % 16:
            attn_mask = F.pad(attn_mask, (0, -length % 16))[..., :length]
        attn_mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    return aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, keep, dropout_p, is_causal, scale=scale
    )[0]
