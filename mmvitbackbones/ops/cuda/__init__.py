"""Kernels for CUDA, in Triton: they read keys where they lie, and keep no scores."""

from .attention import attend_in_place

__all__ = ['attend_in_place']
