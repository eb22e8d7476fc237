"""What the blocks of all backbones are made of."""

from .attention import SelfAttention
from .depthwise import PEG, DepthwiseConv
from .embedding import PatchEmbedding, PatchStem
from .feed_forward import FeedForward
from .position import AbsolutePosition, MapPositionBias, RelativePositionBias
from .residual import Residual

__all__ = [
    'PEG',
    'AbsolutePosition',
    'DepthwiseConv',
    'FeedForward',
    'MapPositionBias',
    'PatchEmbedding',
    'PatchStem',
    'RelativePositionBias',
    'Residual',
    'SelfAttention',
]
