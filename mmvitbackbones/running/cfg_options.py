"""``--cfg-options``: read them, and refuse those that nothing would read."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.optim import OptimWrapper
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
    WEIGHT_INITIALIZERS,
    DefaultScope,
)
from mmengine.runner import LogProcessor, Runner, set_random_seed
from torch.utils.data import DataLoader

_Part = Mapping[str, Any]
_REGISTRIES = (
    *(MODELS, DATASETS, TRANSFORMS, DATA_SAMPLERS, HOOKS, LOOPS, METRICS, EVALUATOR, TASK_UTILS),
    *(OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS, VISUALIZERS, VISBACKENDS, LOG_PROCESSORS),
    *(WEIGHT_INITIALIZERS, OPTIM_WRAPPER_CONSTRUCTORS),
)
# Settings whose keys are names that users choose.
_FREE = {'metainfo', 'data_prefix', 'custom_keys', 'backend_args', 'resource_limit'}
_ALMOST = 0.85  # names that are so alike are a slip
# Settings without a type: by the last part of their names, what is read of them.
_LOADER = {*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch'}
_MODES = {'mode', 'crop_size', 'stride', 'threshold', 'augments', 'rpn', 'rpn_proposal', 'rcnn'} | {
    *('nms', 'nms_pre', 'score_thr', 'max_per_img', 'min_bbox_size', 'mask_thr_binary'),
    *('assigner', 'sampler', 'allowed_border', 'pos_weight', 'debug', 'mask_size'),
}
_READ = {
    'train_dataloader': _LOADER,
    'val_dataloader': _LOADER,
    'test_dataloader': _LOADER,
    'randomness': {*inspect.signature(set_random_seed).parameters},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'mp_cfg': {'mp_start_method', 'opencv_num_threads'},
    'dist_cfg': {'backend', 'timeout', 'port'},
    'clip_grad': {'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach'},
    'paramwise_cfg': {
        *('bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult'),
        *('dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate', 'custom_keys'),
    },
    'test_cfg': _MODES,
    'train_cfg': _MODES,
    'rpn': _MODES,
    'rcnn': _MODES,
    'rpn_proposal': _MODES,
}
_DEFAULT_TYPES = dict(optim_wrapper=OptimWrapper, log_processor=LogProcessor)
_LOOPS = dict(
    val_cfg='ValLoop', test_cfg='TestLoop', val_evaluator='Evaluator', test_evaluator='Evaluator'
)
# What the tools and the toolboxes read at the top, besides what a Runner takes.
_TOP = {
    *inspect.signature(Runner.__init__).parameters,
    *('custom_imports', 'data_root', 'demo', 'find_unused_parameters', 'model_wrapper_cfg'),
    *('compile', 'published_settings', 'runner_type', 'sync_bn', 'tta_model', 'tta_pipeline'),
} - {'self', 'cfg'}


class OptionsAction(DictAction):
    """Reads ``KEY=VALUE ...`` as mmengine does; what it cannot read ends the program in one line.

    A value without brackets or commas stays as it is, spaces included.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Read the options that follow ``option_string``."""
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in values or ():
            key, sign, text = pair.partition('=')
            if not (sign and all(key.split('.'))):
                parser.error(
                    f'--cfg-options takes KEY=VALUE, such as model.backbone.window_size=14; got '
                    f'{pair!r}'
                )
            options[key] = _value(parser, key, text)
        setattr(namespace, self.dest, options)


def add_cfg_options(
    parser: argparse.ArgumentParser,
    help: str = 'settings that override the config',
    default: dict[str, Any] | None = None,
) -> None:
    """Add ``--cfg-options`` to a command line."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        default=default,
        metavar='KEY=VALUE',
        help=help,
    )


def _value(parser: argparse.ArgumentParser, key: str, text: str) -> Any:
    if not set(text) & set(',[](){}'):
        return DictAction._parse_int_float_bool(text.strip('\'"'))
    if any(text.count(left) != text.count(right) for left, right in ('()', '[]', '{}')):
        parser.error(f'--cfg-options {key}: the brackets of {text!r} do not match')
    return DictAction._parse_iterable(text)


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Override settings of a config.

    A setting is known if the config has it, or if the class takes it that ``type`` names there.

    Args:
        cfg (Config): The config, changed in place.
        options (Mapping[str, Any]): By dotted names; those of ``demo.`` are not looked at.

    Raises:
        ValueError: Names an option that nothing would read, with the nearest that is known, or
            one whose value is of another kind than the config's.
    """
    before = cfg._cfg_dict.to_dict()
    checked = [key for key in options if not key.startswith('demo.')]
    for key in checked:
        _check_place(before, key, options)
    try:
        cfg.merge_from_dict(dict(options))
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f'--cfg-options do not fit together or the config: {error}') from None
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'--cfg-options model={options.get("model")}: a run needs a model')
    if 'backbone' in cfg.model and not isinstance(cfg.model.backbone, dict):
        raise ValueError(f'--cfg-options model.backbone={cfg.model.backbone}: it needs a type')
    after = cfg._cfg_dict.to_dict()
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmengine'):
        for key in checked:
            _check_known(before, after, key)
            if key.endswith('.type') and isinstance(options[key], str) and not _find(options[key]):
                raise ValueError(f'--cfg-options {key}={options[key]}: no class has that name')


def _check_place(before: _Part, key: str, options: Mapping[str, Any]) -> None:
    """Compare a value with what the config has in its place."""
    node: Any = before
    parts = key.split('.')
    for depth, part in enumerate(parts):
        place = '.'.join(parts[:depth])
        if place in options and not isinstance(options[place], dict):
            raise ValueError(f'--cfg-options {place}={options[place]} leaves no place for {key}')
        if isinstance(node, (list, tuple)):
            if not (part.isdigit() and int(part) < len(node)):
                raise ValueError(
                    f'--cfg-options {key}: {place} is a list of {len(node)}: its parts are '
                    f'{place}.0 to {place}.{len(node) - 1}'
                )
            node = node[int(part)]
        elif isinstance(node, dict):
            if part not in node:
                return
            node = node[part]
        elif node is None:
            if part != 'type' and f'{place}.type' not in options:
                raise ValueError(
                    f'--cfg-options {key}: {place} is None; give {place}.type, too, such as '
                    f'{place}.type=Pretrained'
                )
            return
        else:
            raise ValueError(f'--cfg-options {key}: {place} is {node!r}, without settings of it')
    _check_kind(key, node, options[key])


def _check_kind(key: str, old: Any, new: Any) -> None:
    kind = None
    if isinstance(old, bool):
        kind = None if isinstance(new, (bool, type(None))) else 'True or False'
    elif isinstance(old, (int, float)):
        kind = 'a number' if isinstance(new, (str, bool)) else None
    elif isinstance(old, str):
        kind = 'one text, without commas' if isinstance(new, list) else None
    elif isinstance(old, dict):
        kind = None if isinstance(new, (dict, type(None))) else 'settings of its own'
    if kind:
        shown = 'a group of settings' if isinstance(old, dict) else repr(old)
        raise ValueError(f'--cfg-options {key}={new}: it takes {kind} (the config has {shown})')


def _check_known(before: _Part, after: _Part, key: str) -> None:
    """Check that something reads a setting."""
    old: Any = before
    new: Any = after
    parts = key.split('.')
    for depth, part in enumerate(parts):
        if isinstance(new, (list, tuple)):
            old = old[int(part)] if isinstance(old, (list, tuple)) and int(part) < len(old) else {}
            new = new[int(part)]
            continue
        if not isinstance(new, dict):
            return  # within a value that was given as a whole
        if not (isinstance(old, dict) and part in old):
            names, complete = _names(parts[:depth], new)
            known = {*names, *(old if isinstance(old, dict) else ())}
            untyped = parts[:depth] == ['default_hooks'] and not (new[part] or {}).get('type')
            alike = difflib.get_close_matches(part, known, 1, _ALMOST)
            if part not in names and (complete or untyped or alike):
                _refuse(parts, depth, known)
            old = {}
        else:
            old = old[part]
        new = new[part]


def _names(parts: list[str], node: _Part) -> tuple[set[str], bool]:
    """What may stand in a group of settings; and whether that is all."""
    if not parts:
        return _TOP, True
    if parts == ['default_hooks'] or not _FREE.isdisjoint(parts):
        return set(), False
    last = parts[-1]
    more = {'type', '_scope_'}
    kind = node.get('type') or _DEFAULT_TYPES.get(last)
    if len(parts) == 1:
        kind = kind or _LOOPS.get(last)
        if last == 'train_cfg' and kind is None:
            kind = 'EpochBasedTrainLoop' if node.get('by_epoch', True) else 'IterBasedTrainLoop'
            more |= {'by_epoch'}
    if kind is None:
        return _READ.get(last, set()), True
    taken, complete = _parameters(kind)
    return taken | more | _READ.get(last, set()), complete


def _parameters(kind: Any) -> tuple[set[str], bool]:
    """What a class takes, by its registered name; and whether that is all."""
    if isinstance(kind, str):
        kind = _find(kind)
    if kind is None:
        return set(), False
    # Classes pass on to their parents what they do not name.
    constructors = (
        [vars(each)['__init__'] for each in kind.__mro__ if '__init__' in vars(each)]
        if inspect.isclass(kind)
        else [kind]
    )
    taken: set[str] = set()
    for constructor in constructors:
        if constructor is object.__init__:
            break
        parameters = inspect.signature(constructor).parameters.values()
        taken |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return taken - {'self'}, True
    return taken - {'self'}, False


def _find(name: str) -> Any:
    """The class, or function, that is registered by a name; None if there is none."""
    for registry in _REGISTRIES:
        with registry.switch_scope_and_registry(None) as of_toolbox:
            found = of_toolbox.get(name)
        if found is not None:
            return found
    return None


def unknown_argument(message: str) -> str:
    """Say what a class takes that was given something else.

    Args:
        message (str): Of a TypeError.

    Returns:
        str: Another message; '' if it is about something else.
    """
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message)
    if not found:
        return ''
    taken, complete = _parameters(found[1])
    if not taken or not complete:
        return ''
    near = difflib.get_close_matches(found[2], taken, 1)
    meant = f'did you mean {near[0]}? ' if near else ''
    return f'{found[1]} has no option {found[2]}: {meant}It takes {", ".join(sorted(taken))}'


def _refuse(parts: list[str], depth: int, names: Iterable[str]) -> None:
    """Name what may be meant.

    Raises:
        ValueError: Always.
    """
    key, place = '.'.join(parts), '.'.join(parts[:depth])
    names = sorted({name for name in names if not name.startswith('_')})
    near = difflib.get_close_matches(parts[depth], names, 1)
    if near:
        meant = '.'.join([*parts[:depth], near[0], *parts[depth + 1 :]])
        advice = f'did you mean {meant}?'
    elif place and names:
        advice = f'{place} takes {", ".join(names)}'
    else:
        advice = 'neither the config nor what it builds has it'
    raise ValueError(f'--cfg-options {key}: there is no such setting: {advice}')
