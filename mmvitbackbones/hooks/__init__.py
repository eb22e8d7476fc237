"""Hooks, registered in ``mmengine.registry.HOOKS``."""

from .random_shift import RandomShiftHook

__all__ = ['RandomShiftHook']
