"""Schedules that do not fit the length of a training: said before it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

_RISING = ('LinearLR', 'ConstantLR', 'QuadraticWarmupLR')


class ScheduleCheckHook(Hook):
    """Warns of a warm-up that is longer than the training, and of rates that fall at once."""

    def before_train(self, runner: Runner) -> None:
        """Compare the schedule of the config with the iterations that there are."""
        schedulers = runner.cfg.get('param_scheduler') or []
        if isinstance(schedulers, Mapping):
            schedulers = [schedulers]
        epoch = len(runner.train_dataloader)
        for warning in schedule_warnings(schedulers, runner.max_iters, epoch):
            runner.logger.warning(warning)


def schedule_warnings(schedulers: list[Mapping[str, Any]], total: int, epoch: int) -> Iterator[str]:
    """Look through a schedule.

    Args:
        schedulers: The config's; those that count epochs fit by themselves.
        total: Iterations of the training.
        epoch: Iterations of an epoch.

    Yields:
        str: What will not be as it was meant.
    """
    for place, scheduler in enumerate(schedulers):
        if scheduler.get('by_epoch', True):
            continue
        name, end = f'param_scheduler.{place}', scheduler.get('end')
        rises = scheduler['type'] in _RISING
        if rises and end is not None and end > total:
            yield (
                f'{name} ({scheduler["type"]}) rises for {end} iterations, the training has '
                f'{total}: the rate never becomes the whole one. Take {name}.end='
                f'{max(total // 10, 1)}'
            )
        falls = scheduler.get('milestones') or ([] if rises or end is None else [end])
        if falls and epoch < total and max(falls) < epoch:
            yield (
                f'{name} ({scheduler["type"]}) counts iterations and ends at {max(falls)}, within '
                f'the first of {total // epoch} epochs of {epoch}: with by_epoch=True it would '
                'count epochs'
            )
