"""What the layers compute with: functions of tensors, on any device; see :mod:`.backend`."""

from .backend import plain, why_plain

__all__ = ['plain', 'why_plain']
