"""Kernels for CPUs: they keep what they compute with in the cache, and little for later."""

from .attention import attend_in_blocks
from .decay import cut_decay, least_decay
from .depthwise import wide_depthwise
from .feed_forward import feed_forward_in_strips
from .rotary import rotate_as_complex

__all__ = [
    'attend_in_blocks',
    'cut_decay',
    'feed_forward_in_strips',
    'least_decay',
    'rotate_as_complex',
    'wide_depthwise',
]
