from .digit_scenes import make_digit_scenes
from .digits import make_digits

__all__ = ['make_digit_scenes', 'make_digits']
