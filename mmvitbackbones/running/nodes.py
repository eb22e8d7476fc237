"""Walking through configs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def dicts(node: object) -> Iterator[dict[str, Any]]:
    """All dicts in a part of a config, however deep.

    Args:
        node (object): A dict, list or tuple; anything else holds none.

    Yields:
        dict: Those inside it, and it itself if it is one, outer ones first.
    """
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from dicts(item)


def set_num_classes(model: dict[str, Any], count: int) -> None:
    """Set the number of classes of all heads of a model's config.

    Args:
        model (dict): The config, changed in place.
        count (int): The number of classes.
    """
    for part in dicts(model):
        if 'num_classes' in part:
            part['num_classes'] = count
