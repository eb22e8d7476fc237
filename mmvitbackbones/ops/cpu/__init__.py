"""Kernels for CPUs: they keep what they compute with in the cache, and little for later."""

from .attention import attend_in_blocks
from .feed_forward import feed_forward_in_strips
from .rotary import rotate_as_complex

__all__ = ['attend_in_blocks', 'feed_forward_in_strips', 'rotate_as_complex']
