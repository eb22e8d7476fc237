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
from .loading import load_whole, takes_published, use_published
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
    'classes_of',
    'end_with_config',
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
