"""Schedules that fit a data set of any size."""

from __future__ import annotations

import math
from typing import Any

from mmengine.config import Config

from .nodes import dicts

_Part = dict[str, Any]  # a part of a config

# Without --epochs: at least so many, and more where a data set is small, so that it is seen in as
# many steps as a fine-tuned detector needs, but not so often that a few images are learnt by heart.
LEAST_EPOCHS, MOST_EPOCHS, STEPS = 12, 100, 3000
_SCHEDULERS = ('LinearLR', 'MultiStepLR', 'CosineAnnealingLR', 'PolyLR')
WARMUP = 0.1  # of the steps, at most
AVERAGED = 10  # weights are averaged over a tenth of the steps, at most


def fit_schedule(
    cfg: Config,
    num_images: int,
    batch_size: int | None,
    epochs: int | None,
    processes: int,
    own_rate: bool = False,
) -> list[str]:
    """Fit length, warm-up, decay, learning rate and intervals to a data set.

    The rate falls at the same fractions of the training as in the config.

    Args:
        cfg (Config): The config, changed in place.
        num_images (int): For training.
        batch_size (int, optional): Images a process takes; None: the config's.
        epochs (int, optional): How often each image is seen; None: from the data set's size.
        processes (int): That train together.
        own_rate (bool): Whether the learning rate was set by hand, so that it stays.

    Returns:
        list[str]: What was done.

    Raises:
        ValueError: If the config has schedulers that do not say where in the training they act,
            or a batch is too small for its model.
    """
    loader = cfg.train_dataloader
    each = math.ceil(num_images / processes)
    loader.batch_size = min(batch_size or loader.batch_size, each)
    pools = any(part.get('pool_scales') for part in dicts(cfg.model))
    if pools and loader.batch_size < 2:
        raise ValueError(
            'the model normalises maps of one pixel over the images of a process: it needs two '
            'of them, --batch-size 2 for example'
        )
    together = loader.batch_size * processes
    steps = math.ceil(num_images / together)
    if epochs is None:
        epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(STEPS / steps)))
    total = epochs * steps
    warmup = _fit_schedulers(cfg, total)
    for hook in cfg.get('custom_hooks') or []:
        if hook['type'] == 'EMAHook':  # else the average would still be what training started from
            hook['momentum'] = max(hook.get('momentum', 0), min(0.5, AVERAGED / total))
    _fit_loop(cfg, epochs, steps)
    said = [f'{epochs} epochs of {steps} steps with {together} images each, {warmup} to warm up']
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    optimizer = cfg.optim_wrapper.optimizer
    rate = optimizer.lr
    if base and not own_rate:
        # Adam divides gradients by their size, so that the square root keeps the noise the same
        # (Malladi et al., arXiv:2205.10287).
        ratio = together / base
        ratio = ratio if optimizer.type == 'SGD' else math.sqrt(ratio)
        optimizer.lr = float(f'{rate * ratio:.3g}')
        said.append(
            f'learning rate {optimizer.lr:g} (the config: {rate:g} for {base} images a step)'
        )
        for scheduler in cfg.param_scheduler:
            if scheduler.get('eta_min'):
                scheduler['eta_min'] *= optimizer.lr / rate
        cfg.auto_scale_lr = dict(enable=False, base_batch_size=together)
    return said


def _fit_schedulers(cfg: Config, total: int) -> int:
    """Let all schedulers count steps, of which there are ``total``; return those of the warm-up.

    Raises:
        ValueError: If a scheduler is of another kind.
    """
    loop = cfg.train_cfg
    epochs = loop.get('max_epochs')
    length = epochs or loop.get('max_iters')
    schedulers = cfg.get('param_scheduler') or []
    schedulers = list(schedulers) if isinstance(schedulers, (list, tuple)) else [schedulers]
    unknown = [each['type'] for each in schedulers if each['type'] not in _SCHEDULERS]
    if unknown:
        raise ValueError(
            f'--data fits {", ".join(_SCHEDULERS)} to the data set, not {", ".join(unknown)}: set '
            'another param_scheduler in the config'
        )
    warmups = [each for each in schedulers if each['type'] == 'LinearLR']
    warmup = max((_warmup_of(each, length, total) for each in warmups), default=0)
    for scheduler in schedulers:
        if scheduler['type'] == 'LinearLR':
            scheduler['begin'], scheduler['end'] = 0, warmup
        else:
            whole = length
            if epochs and not scheduler.get('by_epoch', True):
                # Steps, in a config of epochs: one that was made for a data set.
                whole = _steps_of(scheduler)
            begin = scheduler.get('begin', 0) / whole * total
            scheduler['begin'] = max(warmup, round(begin)) if scheduler.get('begin') else 0
            _fit_decay(scheduler, whole, total)
        scheduler['by_epoch'] = False
        scheduler.pop('convert_to_iter_based', None)
    cfg.param_scheduler = [
        each for each in schedulers if each['type'] != 'LinearLR' or each['end'] > 0
    ]
    return warmup


def _steps_of(scheduler: _Part) -> int:
    """How many steps the training of a scheduler has that counts them.

    Raises:
        ValueError: If it does not say.
    """
    steps = scheduler.get('end') or scheduler.get('T_max')
    if not steps:
        raise ValueError(
            f'--data cannot tell for how long {scheduler["type"]} of param_scheduler acts: give it '
            'an end, or by_epoch=True'
        )
    return steps


def _warmup_of(scheduler: _Part, length: int, total: int) -> int:
    """A warm-up's steps: the config's, or as large a part of the whole; a tenth at most."""
    steps = scheduler.get('end', total)
    if scheduler.get('by_epoch', True):
        steps = round(steps / length * total)
    return min(int(WARMUP * total), steps)


def _fit_decay(scheduler: _Part, length: int, total: int) -> None:
    """Let a rate fall at the same fractions of the training."""
    if 'milestones' in scheduler:
        scheduler['milestones'] = [round(at / length * total) for at in scheduler['milestones']]
    if 'T_max' in scheduler:
        scheduler['T_max'] = total - scheduler['begin']
    scheduler['end'] = total


def _fit_loop(cfg: Config, epochs: int, steps: int) -> None:
    """Evaluate, and write checkpoints, a dozen times at most."""
    interval = max(1, epochs // LEAST_EPOCHS)
    by_epoch = 'max_epochs' in cfg.train_cfg
    if by_epoch:
        cfg.train_cfg.update(max_epochs=epochs, val_interval=interval)
    else:
        interval *= steps
        cfg.train_cfg.update(max_iters=epochs * steps, val_interval=interval)
    hooks = cfg.default_hooks
    hooks.checkpoint.update(by_epoch=by_epoch, interval=interval)
    hooks.logger.interval = max(1, min(hooks.logger.get('interval', 10), steps))
