"""Optimizers' wrappers and their constructors, registered in ``mmengine.registry``."""

from .bfloat16 import BFloat16OptimWrapper
from .grouped_constructor import GroupedOptimWrapperConstructor

__all__ = ['BFloat16OptimWrapper', 'GroupedOptimWrapperConstructor']
