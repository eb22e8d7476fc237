"""Parameters and multiplications of whole models, without running them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..backbones.vision_longformer import VisionLongformerAttention, neighbourhoods


class Complexity(NamedTuple):
    """What a model, or a part of it, takes.

    Attributes:
        params (float): Parameters, in millions.
        gmacs (float): Multiplications but for ``products``, in thousand millions.
        products (float): The backbone's of queries with keys and of weights with values, which some
            papers leave out, in thousand millions.
        masked (float): Those of ``products`` with ViL's keys beyond the map, which are masked.
        depthwise (float): Those of ``gmacs`` that are the backbone's depth-wise convolutions.
    """

    params: float
    gmacs: float
    products: float
    masked: float = 0.0
    depthwise: float = 0.0


def measure(
    cfg: Config,
    size: Sequence[int],
    boxes: int = 1000,
    masks: int = 100,
) -> dict[str, Complexity]:
    """Count a model's parameters and multiplications for one image.

    Nothing is computed: tensors have shapes only.

    Args:
        cfg (Config): A config of mmdetection, mmsegmentation or mmpretrain.
        size (Sequence[int]): Height and width of the image in pixels.
        boxes (int): Regions that go through the box heads of a two-stage detector. Sparse R-CNN's
            are its proposals.
        masks (int): Regions that go through the mask heads.

    Returns:
        dict[str, Complexity]: Of the 'backbone' alone and of the whole 'model', a segmenter's with
        its auxiliary head.
    """
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = _build(cfg).eval()
    with torch.device('meta'), torch.no_grad(), _plain_deformable_convolutions():
        with _masked_products(model.backbone) as masked, _DepthwiseConvolutions() as depthwise:
            channels = getattr(model.backbone, 'in_channels', 3)
            maps, backbone = _count(model.backbone, torch.empty(1, channels, *size))
        backbone = backbone._replace(masked=sum(masked), depthwise=depthwise.gmacs)
        _, rest = _count(_Heads(model, boxes, masks), maps)
    # What is counted with the heads holds the backbone's parameters, too; and Sparse R-CNN's heads
    # have products, but of no attention between pixels.
    gmacs = backbone.gmacs + rest.gmacs + rest.products
    return dict(backbone=backbone, model=backbone._replace(params=rest.params, gmacs=gmacs))


def _build(cfg: Config) -> Any:
    try:
        with torch.device('meta'):
            return MODELS.build(cfg.model)
    except RuntimeError:  # some backbones read numbers from tensors while they are built
        return MODELS.build(cfg.model).to('meta')


def _count(module: nn.Module, *inputs: object) -> tuple[Any, Complexity]:
    with FlopCounterMode(display=False) as counter:
        outputs = module(*inputs)
    flops = {str(name): n for name, n in counter.get_flop_counts().get('Global', {}).items()}
    products = sum(n for name, n in flops.items() if 'bmm' in name or 'dot_product' in name)
    params = sum(p.numel() for p in module.parameters())
    # Two operations, a multiplication and an addition, are one.
    gmacs = (sum(flops.values()) - products) / 2e9
    return outputs, Complexity(params / 1e6, gmacs, products / 2e9)


class _Heads(nn.Module):
    """All of a model but its backbone, as one image goes through it in evaluation."""

    def __init__(self, model: Any, boxes: int, masks: int) -> None:
        super().__init__()
        self.model, self.boxes, self.masks = model, boxes, masks

    def forward(self, maps: tuple[Tensor, ...]) -> None:
        model = self.model
        if model.with_neck:
            maps = model.neck(maps)
        for name in ('decode_head', 'auxiliary_head', 'bbox_head', 'rpn_head', 'head'):
            head = getattr(model, name, None)
            # Sparse R-CNN's proposals are parameters: nothing is computed for them.
            if isinstance(head, nn.Module) and type(head).__name__ != 'EmbeddingRPNHead':
                for each in _each(head):
                    each(maps)
        if hasattr(model, 'roi_head'):
            self._regions(maps)

    def _regions(self, maps: tuple[Tensor, ...]) -> None:
        roi_head = self.model.roi_head
        for head in _each(roi_head.bbox_head):
            if hasattr(head, 'instance_interactive_conv'):
                count, channels = self.model.rpn_head.init_proposal_features.weight.shape
                head(_regions(count, channels, 7), torch.empty(1, count, channels))
            else:
                head(_regions(self.boxes, head.in_channels, head.roi_feat_size[0]))
        if getattr(roi_head, 'semantic_head', None) is not None:
            roi_head.semantic_head(maps)
        if roi_head.with_mask:
            features = None
            for head in _each(roi_head.mask_head):
                regions = _regions(self.masks, head.in_channels, head.roi_feat_size[0])
                if hasattr(head, 'with_conv_res'):  # HTC's mask heads hand features on
                    _, features = head(regions, features)
                else:
                    head(regions)


def _each(head: nn.Module) -> Iterator[Any]:
    """Several heads, such as those of a cascade, or one alone."""
    return iter(head) if isinstance(head, nn.ModuleList) else iter([head])


def _regions(count: int, channels: int, side: int) -> Tensor:
    return torch.empty(count, channels, side, side)


class _DepthwiseConvolutions(TorchDispatchMode):
    """Counts the multiplications of depth-wise convolutions, in thousand millions."""

    gmacs = 0.0

    def __torch_dispatch__(
        self,
        func: OpOverload[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and args[1].shape[1] == 1:
            self.gmacs += out.numel() * args[1][0].numel() / 1e9
        return out


@contextmanager
def _masked_products(backbone: nn.Module) -> Iterator[list[float]]:
    """Collect, in thousand millions, ViL's products of local queries with keys that are masked."""
    masked: list[float] = []

    def collect(attn: VisionLongformerAttention, inputs: tuple[Tensor, ...]) -> None:
        size, dims = tuple(inputs[0].shape[1:3]), inputs[0].shape[3]
        # Each window has as many queries as tokens, and two products.
        (seen,) = neighbourhoods(attn.window, None)
        beyond = ~seen.on_map(size, torch.device('cpu'))
        masked.append(beyond.sum().item() * attn.window**2 * dims * 2 / 1e9)

    modules = (m for m in backbone.modules() if isinstance(m, VisionLongformerAttention))
    hooks = [module.register_forward_pre_hook(collect) for module in modules]
    try:
        yield masked
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _plain_deformable_convolutions() -> Iterator[None]:
    """Let mmcv's deformable convolutions be counted: theirs know no tensors without data.

    Where they sample costs no multiplications that are usually counted.
    """
    from mmcv.ops import ModulatedDeformConv2d

    def forward(self: ModulatedDeformConv2d, x: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
        weights = self.weight, self.bias
        return F.conv2d(x, *weights, self.stride, self.padding, self.dilation, self.groups)

    before, ModulatedDeformConv2d.forward = ModulatedDeformConv2d.forward, forward
    try:
        yield
    finally:
        ModulatedDeformConv2d.forward = before
