"""What the blocks of all backbones are made of."""

from .attention import SelfAttention, attention
from .peg import PEG
from .position import RelativePositionBias

__all__ = ['PEG', 'RelativePositionBias', 'SelfAttention', 'attention']
