"""Mixed precision by bfloat16, on CPUs too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.utils import apply_to
from torch import Tensor, nn

# They call mmcv's operations, which are compiled for float32 and float16 alone.
_FLOAT32_LAYERS = (
    *('SingleRoIExtractor', 'GenericRoIExtractor'),
    *('DeformConv2d', 'DeformConv2dPack', 'ModulatedDeformConv2d', 'ModulatedDeformConv2dPack'),
)


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Lets a model compute in bfloat16 where torch's autocast does, and keeps weights in float32.

    bfloat16 has the range of float32, so that losses need no scale. mmengine's
    ``AmpOptimWrapper`` scales them, and refuses CPUs.

    What comes out of heads is made float32 again, as are the inputs of RoI extractors
    and deformable convolutions: mmcv's own operations do not know bfloat16.

    Args:
        **kwargs: As mmengine's ``OptimWrapper``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._prepared: nn.Module | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """A forward pass, whose backward pass takes the same types."""
        if self._prepared is not model:
            _keep_float32(model)
            self._prepared = model
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


def _keep_float32(model: nn.Module) -> None:
    for module in model.modules():
        kind = type(module).__name__
        if kind in _FLOAT32_LAYERS:
            module.register_forward_pre_hook(_inputs_in_float32)
        elif kind.endswith('Head'):
            module.register_forward_hook(_outputs_in_float32)


def _inputs_in_float32(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    return _in_float32(inputs)


def _outputs_in_float32(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> Any:
    return _in_float32(outputs)


def _in_float32(value: Any) -> Any:
    return apply_to(
        value, lambda each: getattr(each, 'dtype', None) is torch.bfloat16, Tensor.float
    )
