"""Hooks, registered in ``mmengine.registry.HOOKS``."""

from .classes_first import ClassesFirstHook
from .prediction_grid import PredictionGridHook
from .random_shift import RandomShiftHook

__all__ = ['ClassesFirstHook', 'PredictionGridHook', 'RandomShiftHook']
