"""The backbones, registered in ``mmengine.registry.MODELS``."""

from .focal_transformer import FocalTransformer
from .regionvit import RegionViT
from .rmt import RMT
from .vision_longformer import VisionLongformer

__all__ = ['RMT', 'FocalTransformer', 'RegionViT', 'VisionLongformer']
