"""Kernels for CPUs: they keep what they compute with in the cache, and little for later."""

from .convolution import wide_depthwise
from .decay import cut_decay, least_decay
from .feed_forward import feed_forward
from .rotation import rotate
from .window_attention import window_attention

__all__ = [
    'cut_decay',
    'feed_forward',
    'least_decay',
    'rotate',
    'wide_depthwise',
    'window_attention',
]
