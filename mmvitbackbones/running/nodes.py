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
    for _, part in named_dicts(node, ''):
        yield part


def named_dicts(node: object, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """As :func:`dicts`, each with the dotted name by which ``--cfg-options`` reaches it.

    Args:
        node (object): As of :func:`dicts`.
        name (str): Its own name.

    Yields:
        tuple[str, dict]: The name, and the dict.
    """
    children: list[tuple[Any, Any]] = []
    if isinstance(node, dict):
        yield name, node
        children = list(node.items())
    elif isinstance(node, (list, tuple)):
        children = list(enumerate(node))
    for key, child in children:
        yield from named_dicts(child, f'{name}.{key}')


def set_num_classes(model: dict[str, Any], count: int) -> None:
    """Set the number of classes of all heads of a model's config.

    Args:
        model (dict): The config, changed in place.
        count (int): The number of classes.
    """
    for part in dicts(model):
        if 'num_classes' in part:
            part['num_classes'] = count


def numbers_of_classes(model: object) -> Iterator[tuple[str, int]]:
    """The numbers of classes of all heads of a model's config.

    Args:
        model (object): The config.

    Yields:
        tuple[str, int]: The dotted name of each, from ``model`` on, and the number. A semantic
        branch has classes of its own, which are those of its maps.
    """
    for name, part in named_dicts(model, 'model'):
        if isinstance(part.get('num_classes'), int) and 'semantic_head' not in name.split('.'):
            yield f'{name}.num_classes', part['num_classes']
