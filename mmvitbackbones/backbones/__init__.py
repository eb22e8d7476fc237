"""The backbones, registered in ``mmengine.registry.MODELS``."""

from .focal_transformer import FocalTransformer
from .regionvit import RegionViT
from .rmt import RMT

__all__ = ['RMT', 'FocalTransformer', 'RegionViT']
