"""Vision-transformer backbones for OpenMMLab's detectors and segmenters."""

from .requirements_check import check_requirements
from .version import __version__

check_requirements()

from .backbones import RMT, FocalTransformer, RegionViT, VisionLongformer  # noqa: E402
from .checkpoints import allow_mmengine_classes, load_published  # noqa: E402
from .hooks import ClassesFirstHook, NameSampleHook, PredictionGridHook, RandomShiftHook  # noqa: E402
from .necks import NormAndPool, ProjectAndPool  # noqa: E402
from .optimizers import GroupedOptimWrapperConstructor  # noqa: E402
from .running.published import as_published  # noqa: E402
from .zoo import get_config  # noqa: E402

allow_mmengine_classes()

__all__ = [
    'RMT',
    'ClassesFirstHook',
    'FocalTransformer',
    'GroupedOptimWrapperConstructor',
    'NameSampleHook',
    'NormAndPool',
    'PredictionGridHook',
    'ProjectAndPool',
    'RandomShiftHook',
    'RegionViT',
    'VisionLongformer',
    '__version__',
    'as_published',
    'get_config',
    'load_published',
]
