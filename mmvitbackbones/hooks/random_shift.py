"""The random-shift mode of ViL's training, for the first part of it."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..backbones import VisionLongformer


@HOOKS.register_module()
class RandomShiftHook(Hook):
    """Train ViL with random shifts first, then with all neighbours, as its ImageNet recipe does.

    The backbone starts with ``shift_mode=1``; from ``fraction`` of all iterations on it is 0. As
    that depends on the number of the iteration alone, a resumed training goes on as it would have.

    Args:
        fraction (float): Part of the training with random shifts, 0 to 1. Defaults to 0.75.

    Raises:
        ValueError: If ``fraction`` is no number from 0 to 1; when training starts, if the model
            has no :class:`~mmvitbackbones.VisionLongformer`, or one without random shifts.
    """

    def __init__(self, fraction: float = 0.75) -> None:
        if type(fraction) not in (int, float) or not 0 <= fraction <= 1:
            raise ValueError(f'fraction must be a number from 0 to 1, got {fraction!r}')
        self.fraction = fraction
        self._modes: dict[VisionLongformer, int] = {}

    def before_train(self, runner: Runner) -> None:
        """Look the backbones up, and check that they are trained with random shifts."""
        self._backbones = [m for m in runner.model.modules() if isinstance(m, VisionLongformer)]
        if not self._backbones:
            raise ValueError('RandomShiftHook needs a VisionLongformer in the model; it has none')
        for backbone in self._backbones:
            # A second call finds what the switch of the first one has left.
            mode = self._modes.setdefault(backbone, backbone.shift_mode)
            if mode < 1:
                raise ValueError(
                    "RandomShiftHook ends random shifts, but the backbone's shift_mode is "
                    f'{mode}: set shift_mode=1, or leave the hook out'
                )
            backbone.set_shift_mode(mode)
        self._ended = False
        self._switch(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Switch once the fraction is reached."""
        self._switch(runner)

    def _switch(self, runner: Runner) -> None:
        # Rounded, as 0.55 of 100 is a little more than 55.
        if self._ended or runner.iter < round(self.fraction * runner.max_iters, 6):
            return
        for backbone in self._backbones:
            backbone.set_shift_mode(0)
        self._ended = True
        runner.logger.info(f'ViL: all neighbours are seen from iteration {runner.iter + 1} on')
