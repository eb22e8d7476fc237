"""The config that a checkpoint carries, read without running what it says.

mmengine's own reader runs a config as Python code, and a config may name any function of any
package as a ``type``. A config that a user names is trusted; one within a checkpoint is not, as its
weights are not either (``checkpoints/reading.py``).
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from ..stack import TOOLBOXES
from .nodes import dicts

_PACKAGES = (*TOOLBOXES, 'mmcv', 'mmengine', 'mmvitbackbones', 'torch')
_REGISTRIES = ('MODELS', 'TRANSFORMS', 'TASK_UTILS', 'BATCH_AUGMENTS', 'WEIGHT_INITIALIZERS')
# They pass texts from the config to eval().
_NEVER = ('CameraMotionCompensation',)
_NUMBERS = dict(inf=float('inf'), nan=float('nan'))


def carried_config(checkpoint: Mapping[str, Any], path: str) -> Config | None:
    """Read the config that a checkpoint of mmengine carries.

    Args:
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for messages.

    Returns:
        Config: Its settings; None if it carries none.

    Raises:
        ValueError: If it holds more than plain settings, or its model or the way of its data has
            parts that are of no toolbox.
    """
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        return None
    advice = 'Where you trust it, write it to a file and name that by --config'
    try:
        settings = _settings(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f'the config in {path} holds more than settings: {error}. {advice}'
        ) from None
    cfg = Config(settings)
    scope = cfg.get('default_scope')
    if scope in TOOLBOXES:
        parts = [cfg.get('model'), cfg.get('data_preprocessor'), test_dataset(cfg).get('pipeline')]
        unknown = _unknown_types(parts, scope)
        if unknown:
            raise ValueError(
                f'the config in {path} names parts that {scope} does not have '
                f'({", ".join(unknown)}). {advice}'
            )
    return cfg


def test_dataset(cfg: Config) -> dict[str, Any]:
    """The data set that a config tests on, or validates, without what wraps it."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}
    dataset = loader.get('dataset') or {}
    while dataset.get('dataset') or dataset.get('datasets'):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return dataset


def _settings(text: str) -> dict[str, Any]:
    """Evaluate assignments of literals and of ``dict(...)``, and nothing else."""
    settings = {}
    for line in ast.parse(text).body:
        if not (
            isinstance(line, ast.Assign)
            and len(line.targets) == 1
            and isinstance(line.targets[0], ast.Name)
        ):
            raise ValueError(f'line {line.lineno} is no setting')
        settings[line.targets[0].id] = _value(line.value)
    return settings


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        # mmengine writes dict({...}) where a key is no identifier.
        parts = [_value(arg) for arg in node.args]
        parts += [{word.arg: _value(word.value)} for word in node.keywords if word.arg]
        if len(node.args) > 1 or None in (word.arg for word in node.keywords):
            raise ValueError(f'line {node.lineno} is no setting')
        return {key: value for part in parts for key, value in dict(part).items()}
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values) if key}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Name) and node.id in _NUMBERS:
        return _NUMBERS[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ValueError(f'line {node.lineno} is no setting') from None


def _unknown_types(node: object, scope: str) -> list[str]:
    """Types of a config's parts that the toolbox would look for outside of its registries."""
    known = {scope: _registered(scope)}
    unknown: dict[str, None] = {}
    for part in dicts(node):
        kind = part.get('type')
        if not isinstance(kind, str):
            continue
        package, _, name = kind.rpartition('.')
        package = package.partition('.')[0]
        toolbox = package if package in TOOLBOXES else scope
        if toolbox not in known:
            known[toolbox] = _registered(toolbox)
        if not (name in known[toolbox] and package in ('', *_PACKAGES)) and not _is_op(kind):
            unknown[kind] = None
    return [*unknown]


def _registered(scope: str) -> set[str]:
    """Names of the classes in the registries of a toolbox and of what it is based on."""
    module = importlib.import_module(f'{scope}.registry')
    names: set[str] = set()
    for each in _REGISTRIES:
        registry = getattr(module, each, None)
        while isinstance(registry, Registry):
            registry.import_from_location()
            names.update(
                name
                for name, found in registry.module_dict.items()
                # Others read texts as code: wrapped functions and torchvision's transforms.
                if inspect.isclass(found)
                and found.__module__.partition('.')[0] in _PACKAGES
                and '/' not in name
            )
            registry = registry.parent
    return names.difference(_NEVER)


def _is_op(kind: str) -> bool:
    """Whether it is one of mmcv's, which heads look up by themselves: nms, RoIAlign."""
    from mmcv import ops

    return kind in getattr(ops, '__all__', ())
