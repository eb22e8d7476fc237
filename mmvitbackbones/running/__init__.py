"""What the tools share: configs read and adapted, and checks before a run starts."""

from .checks import check_data, check_fit, check_overlap, check_weights
from .command_line import add_common_arguments, build_runner, make_demo_data, plain_errors
from .config import load_config
from .loading import load_classifier
from .tta import use_tta

__all__ = [
    'add_common_arguments',
    'build_runner',
    'check_data',
    'check_fit',
    'check_overlap',
    'check_weights',
    'load_classifier',
    'load_config',
    'make_demo_data',
    'plain_errors',
    'use_tta',
]
