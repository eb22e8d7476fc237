"""Vision-transformer backbones for OpenMMLab's detectors and segmenters."""

from .requirements_check import check_requirements
from .stack import let_configs_find_toolboxes
from .version import __version__

check_requirements()

from .backbones import RMT, FocalTransformer, RegionViT, VisionLongformer  # noqa: E402
from .checkpoints import allow_mmengine_classes, load_published  # noqa: E402
from .hooks import (  # noqa: E402
    AtomicCheckpointHook,
    ClassesFirstHook,
    NameSampleHook,
    PredictionGridHook,
    RandomShiftHook,
    ReproducibleHook,
)
from .necks import NormAndPool, ProjectAndPool  # noqa: E402
from .optimizers import BFloat16OptimWrapper, GroupedOptimWrapperConstructor  # noqa: E402
from .running.published import as_published  # noqa: E402
from .zoo import get_config  # noqa: E402

allow_mmengine_classes()
let_configs_find_toolboxes()

__all__ = [
    'RMT',
    'AtomicCheckpointHook',
    'BFloat16OptimWrapper',
    'ClassesFirstHook',
    'FocalTransformer',
    'GroupedOptimWrapperConstructor',
    'NameSampleHook',
    'NormAndPool',
    'PredictionGridHook',
    'ProjectAndPool',
    'RandomShiftHook',
    'RegionViT',
    'ReproducibleHook',
    'VisionLongformer',
    '__version__',
    'as_published',
    'get_config',
    'load_published',
]
