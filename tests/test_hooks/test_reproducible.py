"""Random numbers of a training that is resumed."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from mmvitbackbones.hooks.reproducible import seed_all

LENGTH = 6  # images; two a step
LOOPS = {
    'epochs': dict(by_epoch=True, max_epochs=3),
    'iterations': dict(by_epoch=False, max_iters=9),
}


class Noise(Dataset):
    """Each sample is its place and what three generators draw."""

    def __len__(self):
        return LENGTH

    def __getitem__(self, place):
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
        return dict(samples=torch.tensor([place, *drawn], dtype=torch.float64))

    def get_cat_ids(self, place):  # of mmdetection's data sets: must be found through the wrapper
        return [place]


class Model(BaseModel):
    """Keeps what it sees, and what it draws itself."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, samples, mode='loss'):
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
        self.seen.append((samples, drawn))
        return dict(loss=self.weight.sum())


def train(folder, loop, sampler, workers=0, load_from=None, seed=5, **options):
    model = Model()
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Noise(),
            batch_size=2,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type=sampler, shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=LOOPS[loop],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            logger=None,
            checkpoint=dict(type='AtomicCheckpointHook', interval=1, by_epoch=loop == 'epochs'),
            randomness=dict(type='ReproducibleHook'),
        ),
        experiment_name=f'{Path(folder).name} {len(MMLogger._instance_dict)}',
        randomness=dict(seed=seed),
        load_from=load_from and str(load_from),
        resume=load_from is not None,
        **options,
    )
    runner.train()
    return runner, model.seen


def same(a, b):
    return len(a) == len(b) and all(
        torch.equal(x, y) and drawn == others for (x, drawn), (y, others) in zip(a, b)
    )


@pytest.mark.parametrize(
    'loop, sampler, done, name',
    [
        ('epochs', 'DefaultSampler', 3, 'epoch_1.pth'),
        ('iterations', 'InfiniteSampler', 4, 'iter_4.pth'),
        # mmengine begins a sampler that ends anew, after each third iteration here.
        ('iterations', 'DefaultSampler', 2, 'iter_2.pth'),
        ('iterations', 'DefaultSampler', 7, 'iter_7.pth'),
    ],
)
def test_resumed_draws_what_it_would_have_drawn(loop, sampler, done, name, tmp_path):
    _, whole = train(tmp_path / 'whole', loop, sampler)
    assert len(whole) == 9
    _, resumed = train(tmp_path / 'other', loop, sampler, load_from=tmp_path / 'whole' / name)
    assert same(resumed, whole[done:])
    # All is drawn, and anew each time.
    places = torch.cat([samples[:, 0] for samples, _ in whole])
    assert all(sorted(part.tolist()) == [*range(LENGTH)] for part in places.split(LENGTH)[:1])
    draws = [*torch.cat([samples[:, 1:] for samples, _ in whole]).flatten().tolist()]
    draws += [number for _, drawn in whole for number in drawn]
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize(
    'loop, sampler', [('epochs', 'DefaultSampler'), ('iterations', 'InfiniteSampler')]
)
def test_workers_make_no_difference(loop, sampler, tmp_path):
    assert same(train(tmp_path, loop, sampler)[1], train(tmp_path, loop, sampler, workers=2)[1])


def test_a_seed_that_was_drawn_is_kept(tmp_path):
    runner, whole = train(tmp_path / 'whole', 'epochs', 'DefaultSampler', seed=None)
    first = tmp_path / 'whole' / 'epoch_1.pth'
    _, resumed = train(tmp_path / 'x', 'epochs', 'DefaultSampler', load_from=first, seed=None)
    assert same(resumed, whole[3:])
    _, other = train(tmp_path / 'y', 'epochs', 'DefaultSampler', seed=None)
    assert not same(other, whole)
    assert runner.train_dataloader.dataset.get_cat_ids(3) == [3]


def test_a_loader_that_is_no_settings(tmp_path):
    with pytest.raises(ValueError, match='needs train_dataloader as settings'):
        Runner(
            model=Model(),
            work_dir=str(tmp_path),
            train_dataloader=DataLoader(Noise()),
            train_cfg=LOOPS['epochs'],
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(randomness=dict(type='ReproducibleHook')),
            experiment_name=f'{tmp_path.name} {len(MMLogger._instance_dict)}',
        ).train()


def test_seeds_of_processes_iterations_and_samples_differ():
    drawn = []
    for numbers in [(1, 0, 0, 0), (1, 0, 0, 1), (1, 0, 1, 0), (1, 1, 0, 0), (2, 0, 0, 0)]:
        seed_all(*numbers)
        drawn += [random.random(), np.random.rand(), torch.rand(()).item()]
    assert len(set(drawn)) == len(drawn)
