"""Whole models are loaded here where mmengine would know no published names."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from ..checkpoints import OURS, LoadReport, is_classifier, is_published, load_published
from ..checkpoints.published import tensors_of
from .checks import check_fit
from .published import as_published


def use_published(
    cfg: Config,
    checkpoint: Mapping[str, Any],
    path: str,
    cfg_options: Mapping[str, Any] | None,
    new_heads: bool = False,
) -> Config:
    """A config with the settings of the published detector that it starts from.

    Args:
        cfg (Config): The config.
        checkpoint (Mapping[str, Any]): What the file holds; where it is no such detector, the
            config stays as it is.
        path (str): The file, for messages.
        cfg_options (Mapping[str, Any], optional): What was set by hand, which goes before.
        new_heads (bool): Whether heads for other classes may start new.

    Returns:
        Config: The config to run.

    Raises:
        ValueError: As :func:`as_published`.
    """
    cfg = as_published(cfg, checkpoint, path, new_heads)
    # The file itself has been chosen: a run that is resumed does not start from load_from.
    by_hand = {key: value for key, value in (cfg_options or {}).items() if key != 'load_from'}
    cfg.merge_from_dict(by_hand)
    return cfg


def takes_published(model: nn.Module, checkpoint: Mapping[str, Any]) -> bool:
    """Whether :func:`load_whole` loads a checkpoint into a model, instead of mmengine."""
    return is_classifier(model) or is_published(checkpoint)


def load_whole(
    model: nn.Module, checkpoint: Mapping[str, Any], path: str, complete: bool = False
) -> LoadReport:
    """Load a whole model, as published or our own, before a run.

    For training call its ``init_weights`` before: mmengine's own call does nothing then. A Runner
    must not load the file again: its ``_load_from`` is None then.

    Args:
        model (nn.Module): The model, without what wraps it.
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for messages.
        complete (bool): Whether parts may not start new, such as a head for other classes.

    Returns:
        LoadReport: What was loaded.

    Raises:
        ValueError: As :func:`load_published`; or if the file is not complete.
    """
    try:
        report = load_published(model, checkpoint, source=path)
    except ValueError as error:
        raise ValueError(f'{error}. A backbone alone is taken by model.backbone.init_cfg') from None
    if complete and report.classes:
        theirs, ours = report.classes
        heads = dict.fromkeys(
            name.rsplit('.', 2)[0] for name in report.new if name in report.unused
        )
        options = ' '.join(f'model.{head}.num_classes={theirs}' for head in heads)
        raise ValueError(
            f'{path} does not fit the config: its heads are for {theirs} classes, those of the '
            f'config for {ours}. What fits is a config and data of {theirs} classes ({options})'
        )
    if complete and report.new:
        raise ValueError(
            f'{path} does not fit the config: {", ".join(report.new)} would start new, untrained'
        )
    return report


def load_complete(model: nn.Module, checkpoint: Mapping[str, Any], path: str) -> None:
    """Load all weights of a model, as published or of a training, to predict with.

    Args:
        model (nn.Module): The model.
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for messages.

    Raises:
        ValueError: If the file does not fit, or is not complete.
    """
    if takes_published(model, checkpoint):
        if load_whole(model, checkpoint, path, complete=True).kind != OURS:
            return
    check_fit(model, checkpoint, path)
    model.load_state_dict(tensors_of(checkpoint))


def write_start(cfg: Config, checkpoint: Mapping[str, Any], path: str) -> None:
    """Write a published model under our names, and let a config start from it.

    Args:
        cfg (Config): The config, whose ``load_from`` becomes the file.
        checkpoint (Mapping[str, Any]): What the published file holds.
        path (str): The file to write.

    Raises:
        FileExistsError: If it is there.
        ValueError: As :func:`load_published`.
    """
    if os.path.lexists(path):
        raise FileExistsError(f'{path} is there already: name another file')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(copy.deepcopy(cfg.model))  # building adds to it
    model.init_weights()
    load_published(model, checkpoint, source=str(cfg.load_from))
    torch.save(dict(state_dict=model.state_dict()), path)
    cfg.load_from = path
