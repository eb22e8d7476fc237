"""A hook that holds the processes of a training against each other, for ``custom_imports``."""

from __future__ import annotations

import torch
from mmengine.dist import all_gather, all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class EqualRanksHook(Hook):
    """Check that processes train on other images, and have equal weights after each step.

    Raises:
        AssertionError: If processes share an image, or if their weights differ or do not change.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Keep the weights to start from."""
        self.before = weights(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict) -> None:
        """Compare the images."""
        samples = data_batch['data_samples']
        seen = all_gather_object([sample.img_path for sample in samples])
        every = sum(seen, [])
        assert len(seen) == 2 and len(set(every)) == len(every), seen

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: dict | None = None
    ) -> None:
        """Compare the weights."""
        first, second = all_gather(weights(runner))
        assert torch.equal(first, second)
        assert not torch.equal(first, self.before)
        self.before = first
        runner.logger.info(f'equal in both processes: {first.numel()} weights')


def weights(runner: Runner) -> torch.Tensor:
    """All that is trained, as one vector."""
    parameters = [p.detach().flatten() for p in runner.model.parameters() if p.requires_grad]
    return torch.cat(parameters)
