"""Configs as the tools run them."""

from __future__ import annotations

import difflib
import os
import os.path as osp
import traceback
import warnings
from typing import Any

from mmengine.config import Config

from ..zoo.configs import config_folder
from .cfg_options import merge_options
from .nodes import dicts

# mmengine asks it for each config of a toolbox; who runs a tool can do nothing about it.
warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)

DEMO_ROOT = 'data/demo'  # scenes of digits
DEMO_DIGITS = 'data/demo_digits'  # one by one


class _TidyOnce(Config):
    """A config that lays its text out again only after a change.

    A Runner asks for the text four times before the first step and with each checkpoint, and to
    lay it out takes half a second or more.
    """

    @property
    def pretty_text(self) -> str:
        plain = Config(self._cfg_dict, format_python_code=False).pretty_text
        tidy = self.__dict__.get('_tidy')
        if tidy is None or tidy[0] != plain:
            tidy = plain, super().pretty_text
            object.__setattr__(self, '_tidy', tidy)
        return tidy[1]


def load_config(
    path: str,
    cfg_options: dict[str, Any] | None = None,
    work_dir: str | None = None,
    demo: bool = False,
    data_root: str | None = None,
) -> Config:
    """Read a config and adapt it to the options of the command line.

    Args:
        path (str): The config; or the name of one of this package's, also as configs/NAME.py.
        cfg_options (dict, optional): Settings that override the config's, by dotted names; they
            also override what the other arguments set.
        work_dir (str, optional): Where logs and checkpoints go; None: the config's, else
            work_dirs/NAME.
        demo (bool): Run on the scenes in ``DEMO_ROOT``, classifiers on those in ``DEMO_DIGITS``.
        data_root (str, optional): Folder of the data set, instead of the config's.

    Returns:
        Config: The config to run.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If options contradict each other or do not fit the config, or the config itself
            is wrong: with file and line.
    """
    path = _file_of(path)
    if demo and data_root:
        raise ValueError('--demo brings its own data: leave --data-root out')
    cfg = _TidyOnce()
    cfg.__dict__.update(_read(path).__dict__)
    cfg_options = cfg_options or {}
    if demo:
        from .demo import drop_absent_weights, use_demo_data

        cfg.merge_from_dict({k: v for k, v in cfg_options.items() if k.split('.')[0] == 'demo'})
        use_demo_data(cfg, demo_root(cfg))
        drop_absent_weights(cfg, keep=cfg_options)
    if data_root:
        _move_data(cfg, data_root)
    merge_options(cfg, cfg_options)
    leave_out_unused_maps(cfg)
    name = osp.splitext(osp.basename(path))[0]
    cfg.work_dir = work_dir or cfg.get('work_dir') or osp.join('work_dirs', name)
    return cfg


def _read(path: str) -> Config:
    """Read a config.

    Raises:
        ValueError: Names the file and the line of a mistake in it, or in one of its bases.
    """
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program, in which anything may fail
        # mmengine says about an import only that it failed.
        reason: BaseException = error
        while isinstance(reason, ImportError) and reason.__context__:
            reason = reason.__context__
        message = (str(reason).strip().splitlines() or [''])[0]
        raise ValueError(f'{_place_of(error, path)}: {type(error).__name__}: {message}') from error
    model = cfg.get('model')
    backbone = model.get('backbone') if isinstance(model, dict) else None
    for name, value in (('model', model), ('backbone', backbone)):
        if value is not None and not isinstance(value, dict):
            raise ValueError(f'{path}: {name} must be a dict with a type, got {value!r}')
    return cfg


def _place_of(error: Exception, path: str) -> str:
    """The file, and the line if it is known, in which reading a config failed."""
    place = path
    for frame, line in traceback.walk_tb(error.__traceback__):
        reads = frame.f_locals.get('filename')
        if frame.f_code.co_name == '<module>':
            place = f'{frame.f_code.co_filename}, line {line}'
        elif isinstance(reads, str) and reads.endswith('.py') and osp.isfile(reads):
            place = reads
    if isinstance(error, SyntaxError):
        place += f', line {error.lineno}'
    return place


def demo_root(cfg: Config) -> str:
    """The folder of the demo's data for a config."""
    return DEMO_DIGITS if cfg.get('default_scope') == 'mmpretrain' else DEMO_ROOT


def _file_of(path: str) -> str:
    """The config's file, which may be this package's own, wherever that is installed."""
    if osp.isfile(path):
        return path
    own = config_folder() / f'{osp.basename(path).removesuffix(".py")}.py'
    if osp.dirname(path) in ('', 'configs') and own.is_file():
        return str(own)
    raise FileNotFoundError(f'there is no config {path!r}{_similar(path)}')


def _similar(path: str) -> str:
    """A hint at files that may be meant."""
    folder = osp.dirname(path) or 'configs'
    if not osp.isdir(folder):
        folder = osp.relpath(config_folder())
    configs = [name for name in os.listdir(folder) if name.endswith('.py')]
    similar = difflib.get_close_matches(osp.basename(path), configs)
    return f': did you mean {", ".join(osp.join(folder, s) for s in similar)}?' if similar else ''


def leave_out_unused_maps(cfg: Config) -> None:
    """Read no semantic maps for a two-stage detector that has no semantic head (any more).

    Args:
        cfg (Config): The config, changed in place.
    """
    roi_head = cfg.model.get('roi_head')
    if not roi_head or roi_head.get('semantic_head') or cfg.model.get('semantic_head'):
        return
    for part in dicts(list(cfg.values())):
        if part.get('with_seg'):
            part['with_seg'] = False
        if 'data_prefix' in part:
            part['data_prefix'].pop('seg', None)


def _move_data(cfg: Config, data_root: str) -> None:
    """Replace the data set's folder everywhere, in evaluators' paths too."""
    old = cfg.get('data_root')
    if not old:
        raise ValueError(f'--data-root needs a config with a data_root, {cfg.filename} has none')
    old, new = old.rstrip('/'), data_root.rstrip('/')

    def moved(node: object) -> object:
        if isinstance(node, dict):
            for key in node:
                node[key] = moved(node[key])
        elif isinstance(node, (list, tuple)):
            return type(node)(moved(item) for item in node)
        elif isinstance(node, str) and (node == old or node.startswith(old + '/')):
            return new + node[len(old) :]
        return node

    for key in list(cfg):
        if key.endswith(('_dataloader', '_evaluator')) or key == 'data_root':
            cfg[key] = moved(cfg[key])
