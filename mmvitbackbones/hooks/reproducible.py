"""Random numbers that follow from the seed, the process, the iteration and the sample alone."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, DataLoader, Dataset

_Draw = tuple[int, tuple[int, ...]]  # the place of a sample, and the seed of its augmentation


@HOOKS.register_module()
class ReproducibleHook(Hook):
    """Lets a training that is resumed draw what it would have drawn, had it not been ended.

    Each iteration seeds Python's, NumPy's and torch's random numbers anew, and so does each sample
    that is read, whichever process reads it: the number of workers makes no difference. Processes
    draw differently. Samples that the training saw before it was ended are passed over unread.

    The seed is that of the config (``randomness.seed``), or the one which mmengine drew and keeps
    in the checkpoint.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Replace the loop's data loader by one that seeds each sample.

        Raises:
            ValueError: If the runner was given a data loader instead of its settings.
        """
        cfg = runner._train_dataloader
        if not isinstance(cfg, dict):
            raise ValueError(
                'ReproducibleHook makes the samplers anew and needs train_dataloader as settings '
                f'in the config, got {type(cfg).__name__}: leave the hook out of default_hooks'
            )
        loop, rank = runner.train_loop, get_rank()
        self._seed = runner.seed - rank * bool(runner._randomness_cfg.get('diff_rank_seed'))
        batches = _batches_of(cfg, loop.dataloader.dataset, self._seed)
        self._batches = _NumberedBatches(batches, (self._seed, rank))
        loop.dataloader = _seeded(loop.dataloader, self._batches)
        self._endless = hasattr(loop, 'dataloader_iterator')
        if self._endless:
            passes = self._batches.pass_over(runner.iter)
            loop.dataloader_iterator = _PassingOver(loop.dataloader, runner.iter, passes)

    def before_train_epoch(self, runner: Runner) -> None:
        """Number the batches of an epoch as the iterations that they are for."""
        if not self._endless:
            self._batches.number = runner.iter

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model, the losses and other hooks draw."""
        seed_all(self._seed, get_rank(), runner.iter, 0)


def seed_all(*numbers: int) -> None:
    """Seed the random numbers of Python, NumPy and torch, on CPUs and GPUs.

    Args:
        *numbers (int): At least 0; other numbers give other seeds.
    """
    words = np.random.SeedSequence(numbers).generate_state(4)
    seed = int(words.view(np.uint64)[0])
    random.seed(seed)
    np.random.seed(words)
    # torch.manual_seed keeps a stack trace for GPUs that are not in use, which takes longer.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _batches_of(cfg: dict[str, Any], dataset: Dataset[Any], seed: int) -> Any:
    """New samplers: those of the loop may be in use already, or have another seed."""
    cfg = copy.deepcopy(cfg)
    sampler = DATA_SAMPLERS.build(cfg['sampler'], default_args=dict(dataset=dataset, seed=seed))
    if cfg.get('batch_sampler'):
        settings = dict(sampler=sampler, batch_size=cfg['batch_size'])
        return DATA_SAMPLERS.build(cfg['batch_sampler'], default_args=settings)
    return BatchSampler(sampler, cfg['batch_size'], cfg.get('drop_last', False))


def _seeded(loader: DataLoader[Any], batches: _NumberedBatches) -> DataLoader[Any]:
    """A data loader like another one, that seeds each sample."""
    kept = (
        *('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn'),
        *('multiprocessing_context', 'prefetch_factor', 'persistent_workers'),
    )
    settings = {name: getattr(loader, name) for name in kept}
    return DataLoader(_SeededDataset(loader.dataset), batch_sampler=batches, **settings)


class _NumberedBatches:
    """The batches of a sampler, each index with a seed: that of its place in the training."""

    def __init__(self, batches: Any, seed: tuple[int, int]) -> None:
        self.batches = batches
        self.seed = seed
        self.number = 0  # of the next batch
        self._begun: Iterator[list[int]] | None = None

    @property
    def sampler(self) -> Any:
        """Whose ``set_epoch`` mmengine calls."""
        return self.batches.sampler

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[_Draw]]:
        batches, self._begun = self._begun or iter(self.batches), None
        for batch in batches:
            seed = (*self.seed, self.number)
            self.number += 1
            yield [(index, (*seed, place)) for place, index in enumerate(batch, 1)]

    def pass_over(self, count: int) -> int:
        """Leave batches out; return how often the sampler came to its end."""
        self.number, passes = count, 0
        self._begun = iter(self.batches)
        for _ in range(count):
            if next(self._begun, None) is None:
                passes += 1
                if hasattr(self.sampler, 'set_epoch'):
                    self.sampler.set_epoch(passes)
                self._begun = iter(self.batches)
                next(self._begun)
        return passes


class _SeededDataset(Dataset[Any]):
    """A data set whose samples are drawn with a seed each."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: _Draw) -> Any:
        index, seed = draw
        seed_all(*seed)
        return self.dataset[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)


class _PassingOver(_InfiniteDataloaderIterator):
    """What a loop of iterations reads, after the batches that the training saw already.

    OpenMMLab's loop asks for those first, one after another, and leaves them out: they are not
    read. OneDL's loop tells it to skip them, which is done.
    """

    def __init__(self, loader: DataLoader[Any], count: int, passes: int) -> None:
        super().__init__(loader)
        self._left_out = 0 if hasattr(_InfiniteDataloaderIterator, 'skip_iter') else count
        self._epoch = passes

    def __next__(self) -> Any:
        if self._left_out:
            self._left_out -= 1
            return None
        return super().__next__()

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: the sampler is behind these batches already."""
