"""The papers' rows as configs: by their names, listed, counted and checked."""

from .configs import config_folder, get_config
from .rows import HEADS, KINDS, Convention, Paper, Row, Zoo, head_of, read_zoo

__all__ = [
    'HEADS',
    'KINDS',
    'Convention',
    'Paper',
    'Row',
    'Zoo',
    'config_folder',
    'get_config',
    'head_of',
    'read_zoo',
]
