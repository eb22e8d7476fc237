"""The backbones, registered in ``mmengine.registry.MODELS``."""

from .regionvit import RegionViT

__all__ = ['RegionViT']
