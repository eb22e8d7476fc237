"""Random shifts in the first part of a training, in mmengine's Runner."""

from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import HOOKS, DefaultScope
from mmengine.runner import Runner
from running_tools import own_instances
from torch import nn

from mmvitbackbones import RandomShiftHook, VisionLongformer
from mmvitbackbones.backbones.vision_longformer import VisionLongformerAttention


@pytest.fixture(autouse=True)
def instances():
    with own_instances():
        yield


class Images(torch.utils.data.Dataset):
    """As many images as asked for, each with its number."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        generator = torch.Generator().manual_seed(number)
        return dict(inputs=torch.randn(3, 64, 64, generator=generator), number=number)


def vil(**options):
    arch = dict(dims=[4, 8], heads=[1, 2], depths=[2, 1])
    options = dict(shift_mode=1, window_size=3, drop_path_rate=0, attention='vil') | options
    return VisionLongformer(arch, **options)


class Detector(BaseModel):
    """A backbone with a loss, and a list of what its attentions were told in each iteration."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.modes = backbone, []

    def forward(self, inputs, number, mode='tensor'):
        attentions = [m for m in self.modules() if isinstance(m, VisionLongformerAttention)]
        assert len({attention.shift_mode for attention in attentions}) == 1
        self.modes.append(attentions[0].shift_mode)
        # What is drawn depends on the image alone, as a Runner does not resume generators.
        torch.manual_seed(int(number))
        return dict(loss=sum((m * m.detach().cos()).mean() for m in self.backbone(inputs)))


class Interruption(Exception):
    """A training that is killed."""


class Interrupt(Hook):
    """Kill the training before an iteration."""

    priority = 'LOWEST'

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise Interruption


def detector(backbone=None):
    torch.manual_seed(0)
    return Detector(vil() if backbone is None else backbone)


def runner_of(folder, model, loop, images=None, fraction=0.75, hooks=(), **options):
    """A Runner that saves after each epoch, or each iteration."""
    if images is None:
        # mmengine waits for two seconds where a loop of iterations starts its data again.
        images = 2 if loop['by_epoch'] else loop['max_iters']
    hook = dict(type='RandomShiftHook', fraction=fraction)
    save = dict(type='CheckpointHook', interval=1, by_epoch=loop['by_epoch'])
    return Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Images(images),
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=loop,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(logger=None, checkpoint=save),
        custom_hooks=[hook, *hooks],
        experiment_name=f'{Path(folder).name} {len(MMLogger._instance_dict)}',
        **options,
    )


def iterations(count):
    return dict(by_epoch=False, max_iters=count)


def epochs(count):
    return dict(by_epoch=True, max_epochs=count)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def seen_from(first, total):
    """Modes of a training in which all neighbours are seen from an iteration on."""
    return [1] * first + [0] * (total - first)


@pytest.mark.parametrize(
    'loop, images, fraction, expected',
    [
        (iterations(8), 8, 0.75, seen_from(6, 8)),
        (iterations(5), 5, 0.75, seen_from(4, 5)),
        (iterations(4), 4, 0, seen_from(0, 4)),
        (iterations(4), 4, 1, seen_from(4, 4)),
        (iterations(4), 4, 0.99, seen_from(4, 4)),
        (epochs(4), 2, 0.75, seen_from(6, 8)),
        (epochs(2), 5, 0.75, seen_from(8, 10)),
        (epochs(1), 8, 0.25, seen_from(2, 8)),
        (epochs(2), 2, 0, seen_from(0, 4)),
        (epochs(2), 2, 1.0, seen_from(4, 4)),
    ],
)
def test_fraction_of_all_iterations(loop, images, fraction, expected, tmp_path):
    model = detector()
    runner_of(tmp_path, model, loop, images, fraction).train()
    assert model.modes == expected
    assert model.backbone.shift_mode == (0 if 0 in expected else 1)


def test_the_log_says_when(tmp_path):
    runner_of(tmp_path, detector(), iterations(8)).train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert log.count('all neighbours') == 1
    assert 'from iteration 7 on' in log


@pytest.mark.parametrize(
    'loop, at',
    [
        *((iterations(8), at) for at in (1, 5, 6, 7)),
        # The switch is in the middle of the fifth epoch.
        *((epochs(6), at) for at in (2, 8, 10)),
    ],
)
def test_resumed(loop, at, tmp_path):
    """Before the switch and after it, as if the training had not been interrupted."""
    total = loop.get('max_iters', 12)
    whole, interrupted, resumed, never = (detector() for _ in range(4))
    runner_of(tmp_path / 'whole', whole, loop).train()
    assert whole.modes == seen_from(round(total * 0.75), total)
    with pytest.raises(Interruption):
        runner_of(tmp_path / 'cut', interrupted, loop, hooks=[Interrupt(at)]).train()
    runner_of(tmp_path / 'cut', resumed, loop, resume=True).train()
    assert interrupted.modes + resumed.modes == whole.modes
    assert same(resumed.state_dict(), whole.state_dict())
    # Which the mode has a part in.
    runner_of(tmp_path / 'never', never, loop, fraction=1).train()
    assert not same(never.state_dict(), whole.state_dict())


def test_loaded_weights_start_from_the_beginning(tmp_path):
    """Other than resumed ones, also those of a training that had got past the switch."""
    runner_of(tmp_path / 'first', detector(), iterations(4)).train()
    model, file = detector(), str(tmp_path / 'first' / 'iter_4.pth')
    runner_of(tmp_path / 'second', model, iterations(8), load_from=file).train()
    assert model.modes == seen_from(6, 8)


@pytest.mark.parametrize('loop', [iterations(4), epochs(2)], ids=['iterations', 'epochs'])
def test_a_second_call(loop, tmp_path):
    """Of a training that is over."""
    model = detector()
    runner = runner_of(tmp_path / 'whole', model, loop)
    runner.train()
    runner.train()
    assert model.modes == seen_from(3, 4)
    assert model.backbone.shift_mode == 0


def test_a_second_call_after_an_interruption(tmp_path):
    """Goes on where the first one ended, as from a notebook."""
    model, interrupt = detector(), Interrupt(6)
    runner = runner_of(tmp_path, model, iterations(8), 16, 0.5, hooks=[interrupt])
    with pytest.raises(Interruption):
        runner.train()
    interrupt.iteration = None
    runner.train()
    assert model.modes == seen_from(4, 8)


@pytest.mark.parametrize('mode', [1, 5])
@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg'])
def test_scopes(scope, mode, tmp_path):
    """The hook is found from wherever a config's default scope is."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    model = detector(vil(shift_mode=mode))
    runner_of(tmp_path, model, iterations(4), default_scope=scope).train()
    assert model.modes == [mode] * 3 + [0]


@pytest.mark.parametrize('scope', [None, 'mmdet', 'mmseg'])
def test_registered(scope):
    with DefaultScope.overwrite_default_scope(scope):
        hook = HOOKS.build(dict(type='RandomShiftHook'))
        assert type(hook) is RandomShiftHook and hook.fraction == 0.75
        assert HOOKS.build(dict(type='RandomShiftHook', fraction=0)).fraction == 0
    if scope:
        registry = pytest.importorskip(f'{scope}.registry').HOOKS
        assert registry.get('RandomShiftHook') is RandomShiftHook


def test_anywhere_in_the_model(tmp_path):
    """Of a student and its teacher both; one of full attention has no part in it."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleDict(dict(student=nn.Sequential(vil()), teacher=vil()))
            self.full = vil(attention='full')

        def forward(self, x):
            return [m for part in (*self.parts.values(), self.full) for m in part(x)]

    model = detector(Both())
    runner_of(tmp_path, model, iterations(4)).train()
    assert model.modes == seen_from(3, 4)
    backbones = [m for m in model.modules() if isinstance(m, VisionLongformer)]
    assert [backbone.shift_mode for backbone in backbones] == [0, 0, 0]


def test_in_a_wrapper(tmp_path):
    """Of distributed training, here of one process."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        model, alone = detector(), detector()
        wrapped = MMDistributedDataParallel(module=model)
        runner_of(tmp_path / 'wrapped', wrapped, iterations(4)).train()
        runner_of(tmp_path / 'alone', alone, iterations(4)).train()
    finally:
        torch.distributed.destroy_process_group()
    assert model.modes == alone.modes == seen_from(3, 4)
    assert same(model.state_dict(), alone.state_dict())


# What is wrong.


@pytest.mark.parametrize(
    'fraction', [-0.01, 1.01, 2, float('nan'), float('inf'), '0.75', True, None, [0.5]]
)
def test_wrong_fractions(fraction):
    with pytest.raises(ValueError, match='fraction must be a number from 0 to 1, got'):
        RandomShiftHook(fraction)


@pytest.mark.parametrize('mode', [0, -1])
def test_a_backbone_without_random_shifts(mode, tmp_path):
    model = detector(vil(shift_mode=mode))
    with pytest.raises(ValueError, match=f'shift_mode is {mode}: set shift_mode=1'):
        runner_of(tmp_path, model, iterations(4)).train()
    assert not model.modes


def test_one_of_two_without_random_shifts(tmp_path):
    model = detector()
    model.teacher = vil(shift_mode=0)
    with pytest.raises(ValueError, match='set shift_mode=1'):
        runner_of(tmp_path, model, iterations(4)).train()


def test_a_model_without_vil(tmp_path):
    model = detector(nn.Conv2d(3, 4, 4))
    with pytest.raises(ValueError, match='RandomShiftHook needs a VisionLongformer'):
        runner_of(tmp_path, model, iterations(4)).train()
