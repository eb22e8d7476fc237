"""Test-time augmentation for mmdetection, which this package imports."""

from .instance_tta import InstanceTTAModel

__all__ = ['InstanceTTAModel']
