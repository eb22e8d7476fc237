"""What the layers compute with: functions of tensors, on any device; see :mod:`.backend`."""

from .backend import plain, why_plain
from .watching import watching

__all__ = ['plain', 'watching', 'why_plain']
