"""The backbones, registered in ``mmengine.registry.MODELS``."""

from .focal_transformer import FocalTransformer
from .regionvit import RegionViT

__all__ = ['FocalTransformer', 'RegionViT']
