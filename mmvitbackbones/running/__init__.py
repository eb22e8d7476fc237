"""What the tools share: configs read and adapted, and checks before a run starts."""

from .checks import (
    check_classes,
    check_data,
    check_fit,
    check_overlap,
    check_schedule,
    check_weights,
    classes_of,
)
from .command_line import (
    add_common_arguments,
    build_runner,
    end_with_config,
    make_demo_data,
    plain_errors,
    positive,
    read_config,
)
from .config import load_config
from .full_disk import full_disk_in_words
from .loading import load_whole, takes_published, use_published
from .resuming import choose_checkpoint, end_if_finished
from .tta import use_tta

__all__ = [
    'add_common_arguments',
    'build_runner',
    'check_classes',
    'check_data',
    'check_fit',
    'check_overlap',
    'check_schedule',
    'check_weights',
    'choose_checkpoint',
    'classes_of',
    'end_if_finished',
    'end_with_config',
    'full_disk_in_words',
    'load_config',
    'load_whole',
    'make_demo_data',
    'plain_errors',
    'positive',
    'read_config',
    'takes_published',
    'use_published',
    'use_tta',
]
