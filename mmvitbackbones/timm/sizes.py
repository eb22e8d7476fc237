"""Every published size, by the name that timm's ``create_model`` knows it by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from torch import nn

from ..backbones import focal_transformer, regionvit, rmt, vision_longformer
from ..backbones.pyramid import Pyramid
from ..necks import NormAndPool, ProjectAndPool
from .image_classifier import FeatureMaps, ImageClassifier

_PROJECTED = 1024  # channels after RMT's projection, whatever the size


@dataclass(frozen=True)
class _Paper:
    """How timm is told of a paper's sizes.

    Args:
        backbone (type[Pyramid]): The backbone.
        archs (Mapping): Its sizes.
        neck (Callable): From the last stage's channels to what the paper does with each token.
        first_conv (Callable): From an arch to the names of the layers that read the image.
        num_features (int, optional): Channels after the neck; None: as before.
        classified (int, optional): Which item of what a stage hands on is classified; None: what
            the backbone emits.
        pool_size (tuple[int, int]): Of what is classified, of 224 x 224 pixels.
        fixed (Mapping[str, str]): Options that are not the user's, and why.
        files (Mapping[str, str]): Files that are open to all, by arch.
    """

    backbone: type[Pyramid]
    archs: Mapping[str, Mapping[str, Any]]
    neck: Callable[[int], nn.Module]
    first_conv: Callable[[Mapping[str, Any]], tuple[str, ...]]
    num_features: int | None = None
    classified: int | None = None
    pool_size: tuple[int, int] = (7, 7)
    fixed: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


_PAPERS = dict(
    regionvit=_Paper(
        regionvit.RegionViT,
        regionvit.ARCHS,
        neck=NormAndPool,
        first_conv=lambda arch: ('stem.local.0', 'stem.regional'),
        # The regional tokens; where an arch has none, the local ones.
        classified=-1,
        pool_size=(1, 1),
        fixed=dict(
            outputs='maps are those of local tokens, and the classifier takes the regional ones'
        ),
        files={
            arch: f'RegionViT-{size}.pth'
            for arch, size in dict(tiny='Ti', small='S', medium='M', base='B').items()
        },
    ),
    focal=_Paper(
        focal_transformer.FocalTransformer,
        focal_transformer.ARCHS,
        neck=partial(NormAndPool, eps=1e-5),
        first_conv=lambda arch: ('stem.conv',),
    ),
    rmt=_Paper(
        rmt.RMT,
        rmt.ARCHS,
        neck=partial(ProjectAndPool, out_channels=_PROJECTED),
        first_conv=lambda arch: ('stem.0' if arch['stem'] == 'conv' else 'stem.conv',),
        num_features=_PROJECTED,
    ),
    vil=_Paper(
        vision_longformer.VisionLongformer,
        vision_longformer.ARCHS,
        neck=NormAndPool,
        first_conv=lambda arch: ('stem.conv',),
    ),
)


def _build(
    paper: _Paper,
    arch: str | dict[str, Any],
    num_classes: int = 1000,
    in_chans: int = 3,
    global_pool: str = 'avg',
    drop_rate: float = 0.0,
    proj_drop_rate: float | None = None,
    output_stride: int = 32,
    **options: Any,
) -> ImageClassifier:
    """Build a model from timm's options and the backbone's own.

    Raises:
        ValueError: For an option's value that is not allowed.
    """
    for option, reason in paper.fixed.items():
        if option in options:
            raise ValueError(f'{option} is not an option here: {reason}')
    if output_stride != 32:
        raise ValueError(
            f'output_stride must be 32, got {output_stride}: the attentions know no dilation'
        )
    if proj_drop_rate is not None:
        options['drop_rate'] = proj_drop_rate
    options.setdefault('out_norm', None)
    make: Callable[..., Pyramid] = paper.backbone
    backbone = make(arch=arch, in_channels=in_chans, **options)
    dims = backbone.channels[-1]
    return ImageClassifier(
        backbone,
        paper.neck(dims),
        classified=backbone.emitted if paper.classified is None else paper.classified,
        num_features=paper.num_features or dims,
        num_classes=num_classes,
        global_pool=global_pool,
        drop_rate=drop_rate,
    )


def _default_cfg(paper: _Paper, arch: str) -> dict[str, Any]:
    source, file = paper.backbone.family.source, paper.files.get(arch)
    return dict(
        url='' if file is None else source.files[file],
        custom_load=True,  # by the model's load_pretrained
        num_classes=1000,
        input_size=(3, 224, 224),
        pool_size=paper.pool_size,
        crop_pct=224 / 256,
        interpolation='bicubic',
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        first_conv=tuple(f'backbone.{name}' for name in paper.first_conv(paper.archs[arch])),
        classifier='head.fc',
        origin_url=source.page,
    )


SIZES = {f'{prefix}_{arch}': arch for prefix, paper in _PAPERS.items() for arch in paper.archs}
default_cfgs = {
    f'{prefix}_{arch}': _default_cfg(paper, arch)
    for prefix, paper in _PAPERS.items()
    for arch in paper.archs
}


def _register(name: str, paper: _Paper, arch: str) -> None:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        given = options.get('pretrained_cfg') or options.get('pretrained_cfg_overlay')
        if pretrained and not given and not default_cfgs[name]['url']:
            source = paper.backbone.family.source
            raise RuntimeError(
                f'{name}: there are no weights that can be fetched. Give a file by '
                f'checkpoint_path; the authors publish theirs at {source.page} ({source.state})'
            )
        return build_model_with_cfg(
            partial(_build, paper),
            name,
            pretrained,
            feature_cfg=dict(
                out_indices=range(len(paper.archs[arch]['dims'])), feature_cls=FeatureMaps
            ),
            **{'arch': arch, **options},
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f'{paper.backbone.__name__} of the size {arch!r}.'
    register_model(create)


for _prefix, _paper in _PAPERS.items():
    for _arch in _paper.archs:
        _register(f'{_prefix}_{_arch}', _paper, _arch)
