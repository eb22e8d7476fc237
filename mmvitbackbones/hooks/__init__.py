"""Hooks, registered in ``mmengine.registry.HOOKS``."""

from .classes_first import ClassesFirstHook
from .name_sample import NameSampleHook
from .prediction_grid import PredictionGridHook
from .random_shift import RandomShiftHook

__all__ = ['ClassesFirstHook', 'NameSampleHook', 'PredictionGridHook', 'RandomShiftHook']
