"""A tiny model of every family, all of its parameters random, and what tests do with it."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import mmvitbackbones  # noqa: F401  (registers the backbones)

# Windows leave partial ones at most sizes; what a family has of its own is there.
OPTIONS = dict(
    RegionViT=dict(
        arch=dict(
            stem='3-conv',
            dims=[16, 16, 32, 32],
            heads=[2, 2, 4, 4],
            depths=[1, 2, 1, 1],
            window_size=3,
        )
    ),
    FocalTransformer=dict(
        arch=dict(dims=[8, 8, 16, 16], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1]),
        window_size=(4, 3, 2, 3),
        expand_sizes=(2, 1, 1, 0),
        focal_windows=(3, 2, 5, 1),
    ),
    RMT=dict(
        arch=dict(
            dims=[8, 8, 16, 16],
            heads=[1, 2, 2, 4],
            depths=[1, 2, 1, 1],
            mlp_ratios=[2, 3, 2, 3],
            decay_range=[(2, 4), (1, 3), (2, 5), (2, 6)],
            attention=('decomposed', 'decomposed', 'whole', 'whole'),
            layer_scale=(None, None, 1e-6, 1e-6),
        )
    ),
    VisionLongformer=dict(
        arch=dict(dims=[8, 8, 16, 16], heads=[1, 2, 2, 4], depths=[1, 2, 1, 1]),
        attention=('vil', 'vil', 'full', 'vil'),
        num_global_tokens=(1, 2, 1, 0),
        window_size=(4, 3, 2, 3),
        pretrain_img_size=64,
    ),
)
# Options of only some of the families, by those that do without.
LACKS = dict(RMT={'peg', 'drop_rate', 'attn_drop_rate'})


def build(family: str, seed: int = 0, dtype: torch.dtype = torch.float64, **options) -> nn.Module:
    """A model in training mode, without stochastic depth."""
    torch.manual_seed(seed)
    options = {'type': family, 'drop_path_rate': 0.0, **OPTIONS[family], **options}
    return randomise(MODELS.build(options).to(dtype))


def randomise(module: nn.Module) -> nn.Module:
    """Move all parameters away from where they start, as zeros hide mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.running_mean.normal_(0, 0.2)
                layer.running_var.uniform_(0.5, 1.5)
    return module


def image(
    height: int, width: int, batch: int = 1, dtype: torch.dtype = torch.float64, seed: int = 1
) -> Tensor:
    """Random images, (B, 3, H, W)."""
    return torch.randn(
        batch, 3, height, width, dtype=dtype, generator=torch.Generator().manual_seed(seed)
    )


def weighed(maps: tuple[Tensor, ...]) -> Tensor:
    """A loss that weighs every value of the maps differently."""
    return sum((m * torch.cos(torch.arange(m.numel()).view_as(m))).sum() for m in maps)


def gradients(model: nn.Module, x: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Outputs, and the gradients of :func:`weighed` by the parameters' names."""
    model.zero_grad()
    maps = model(x)
    weighed(maps).backward()
    return maps, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns, also in the backward pass."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor):
                numel = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.numel = max(self.numel, numel)
        return out
