"""Hooks, registered in ``mmengine.registry.HOOKS``."""

from .prediction_grid import PredictionGridHook
from .random_shift import RandomShiftHook

__all__ = ['PredictionGridHook', 'RandomShiftHook']
