"""The backbones as models of timm: importing this registers every published size with it."""

from .image_classifier import FeatureMaps, ImageClassifier
from .sizes import SIZES

__all__ = ['SIZES', 'FeatureMaps', 'ImageClassifier']
