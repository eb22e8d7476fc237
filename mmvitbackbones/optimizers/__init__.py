"""Constructors of optimizers, registered in ``mmengine.registry.OPTIM_WRAPPER_CONSTRUCTORS``."""

from .grouped_constructor import GroupedOptimWrapperConstructor

__all__ = ['GroupedOptimWrapperConstructor']
