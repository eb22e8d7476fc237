"""What the blocks of all backbones are made of."""

from .attention import SelfAttention
from .embedding import PatchEmbedding
from .feed_forward import FeedForward
from .peg import PEG
from .position import RelativePositionBias

__all__ = ['PEG', 'FeedForward', 'PatchEmbedding', 'RelativePositionBias', 'SelfAttention']
