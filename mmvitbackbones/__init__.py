"""Vision-transformer backbones for OpenMMLab's detectors and segmenters."""

from .backbones import RegionViT

__all__ = ['RegionViT']
