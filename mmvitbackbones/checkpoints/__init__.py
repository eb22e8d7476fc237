"""Published weights: recognise, rename, resize, report; and safe reading of files."""

from .newest import newest_checkpoint
from .published import OURS, LoadReport, is_classifier, is_published, load_published
from .reading import (
    UnreadableCheckpointError,
    allow_mmengine_classes,
    read_checkpoint,
    use_safe_loading,
)

__all__ = [
    'OURS',
    'LoadReport',
    'UnreadableCheckpointError',
    'allow_mmengine_classes',
    'is_classifier',
    'is_published',
    'load_published',
    'newest_checkpoint',
    'read_checkpoint',
    'use_safe_loading',
]
