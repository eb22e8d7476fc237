"""Hooks, registered in ``mmengine.registry.HOOKS``."""

from .atomic_checkpoint import AtomicCheckpointHook
from .classes_first import ClassesFirstHook
from .name_sample import NameSampleHook
from .prediction_grid import PredictionGridHook
from .random_shift import RandomShiftHook
from .reproducible import ReproducibleHook

__all__ = [
    'AtomicCheckpointHook',
    'ClassesFirstHook',
    'NameSampleHook',
    'PredictionGridHook',
    'RandomShiftHook',
    'ReproducibleHook',
]
