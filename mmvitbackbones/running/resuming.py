"""Trainings that go on, and those that are over."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from ..checkpoints import newest_checkpoint
from .processes import say


def choose_checkpoint(cfg: Config) -> None:
    """Let a config that is to be resumed start from the newest checkpoint of its work folder.

    Where there is none, its training starts anew. What was decided is said.

    Args:
        cfg (Config): The config, changed in place.

    Raises:
        UnreadableCheckpointError: If there are checkpoints, and none can be used.
    """
    newest, remarks = newest_checkpoint(cfg.work_dir)
    if newest is None:
        remarks.append(f'there is no checkpoint in {cfg.work_dir}: the training starts anew')
    say(*remarks)
    cfg.load_from, cfg.resume = newest or cfg.get('load_from'), newest is not None


def end_if_finished(cfg: Config, checkpoint: Mapping[str, Any], path: str) -> None:
    """End the program where a training that is to be resumed has reached its end.

    Args:
        cfg (Config): The config.
        checkpoint (Mapping[str, Any]): What the file holds.
        path (str): The file, for the message.
    """
    loop, meta = cfg.train_cfg, checkpoint.get('meta') or {}
    kind = loop.get('type', 'EpochBasedTrainLoop' if loop.get('by_epoch', True) else '')
    unit = 'epoch' if kind == 'EpochBasedTrainLoop' else 'iter'
    done, total = meta.get(unit), loop.get(f'max_{unit}s')
    if done is None or total is None or done < total:
        return
    what = dict(epoch='epochs', iter='iterations')[unit]
    say(
        f'{path} is the end of the training, which is finished: {done} of {total} {what}. '
        'To train for longer, start anew from it: --cfg-options load_from=FILE'
    )
    sys.exit(0)
