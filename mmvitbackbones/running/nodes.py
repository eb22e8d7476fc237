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
