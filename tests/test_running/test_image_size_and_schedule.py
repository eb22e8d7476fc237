"""A config at another size of images, and with a schedule for another number of them."""

import argparse
import copy
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from mmvitbackbones import get_config
from mmvitbackbones.running.command_line import positive
from mmvitbackbones.running.image_size import fit_crops, set_image_size
from mmvitbackbones.running.nodes import dicts
from mmvitbackbones.running.schedule import fit_schedule
from mmvitbackbones.running.schedule_check import schedule_warnings

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

SIZES = {
    'maskrcnn_regionvit_s_1x': [672, 1120],
    'maskrcnn_regionvit_s_3x': [672, 1120],
    'retinanet_regionvit_b_plus_peg_896_3x': [896, 1344],
    'maskrcnn_focal_t_3x': [800, 1333],
    'dyhead_focal_l_2x': [1200, 2000],
    'semfpn_regionvit_s_80k': [448],
    'upernet_focal_t_160k': [512],
    'upernet_focal_l_160k': [640],
    'cls_regionvit_s_in1k': [224],
    'cls_regionvit_b_384_in1k': [384],
}


@pytest.mark.parametrize('name', SIZES)
def test_the_configs_own_size_changes_nothing(name):
    cfg = get_config(name)
    before = copy.deepcopy(cfg.to_dict())
    set_image_size(cfg, SIZES[name])
    assert cfg.to_dict() == before


def numbers(cfg):
    """All that is in pixels, of the pipelines and of the model's paddings and sliding windows."""
    steps = [*dicts([part.get('pipeline') for part in dicts(list(cfg.values()))])]
    steps += [*dicts(cfg.get('tta_pipeline')), cfg.model.get('test_cfg') or {}]
    steps.append(cfg.model.get('data_preprocessor') or {})
    keys = ('scale', 'scales', 'crop_size', 'stride', 'size')
    return flat([step[key] for step in steps for key in keys if key in step])


def flat(node):
    return [n for part in node for n in flat(part)] if isinstance(node, (list, tuple)) else [node]


@pytest.mark.parametrize('name', SIZES)
def test_twice_the_size_doubles_all(name):
    """Random sizes, crops, sliding windows, paddings, and the views of --tta."""
    cfg = get_config(name)
    before = numbers(cfg)
    assert before
    said = set_image_size(cfg, [2 * side for side in SIZES[name]])
    after = numbers(cfg)
    assert str(2 * SIZES[name][0]) in said
    assert max(abs(b - 2 * a) for a, b in zip(before, after)) <= 1


@pytest.mark.parametrize(
    'name, size, words',
    [
        ('maskrcnn_regionvit_s_1x', [512], 'takes SHORT LONG for a detector, got 512'),
        ('semfpn_regionvit_s_80k', [512, 512], 'takes SIDE'),
        ('cls_regionvit_s_in1k', [16], 'at least 32'),
        ('maskrcnn_regionvit_s_1x', [800, 512], 'SHORT not above LONG'),
    ],
)
def test_sizes_that_do_not_fit(name, size, words):
    with pytest.raises(ValueError, match=words):
        set_image_size(get_config(name), size)


def test_paddings_by_steps_follow():
    cfg = get_config('maskrcnn_regionvit_s_1x')
    pad = dict(type='mmdet.Pad', size=(1120, 1120))
    cfg.train_dataloader.dataset.pipeline.insert(-1, pad)
    cfg.model.data_preprocessor.batch_augments = [dict(type='BatchFixedSizePad', size=(672, 672))]
    set_image_size(cfg, [336, 560])
    assert cfg.train_dataloader.dataset.pipeline[-2]['size'] == (560, 560)
    assert cfg.model.data_preprocessor.batch_augments[0]['size'] == (336, 336)


@pytest.mark.parametrize(
    'name, short_side, crop',
    [
        ('semfpn_regionvit_s_80k', 20, 32),
        ('semfpn_regionvit_s_80k', 300, 320),
        ('semfpn_regionvit_s_80k', 448, 448),
        ('upernet_focal_t_160k', 2000, 512),
    ],
)
def test_crops_follow_small_images(name, short_side, crop):
    cfg = get_config(name)
    before = numbers(cfg)
    said = fit_crops(cfg, short_side)
    steps = [*dicts(cfg.train_dataloader.dataset)]
    assert {step['crop_size'] for step in steps if 'crop_size' in step} == {(crop, crop)}
    assert cfg.model.data_preprocessor.size == (crop, crop)
    if numbers(cfg) == before:
        assert not said
    else:
        assert f'crops of {crop} x {crop}' in said[0]


@pytest.mark.parametrize(
    'name', ['maskrcnn_rmt_t_1x', 'dyhead_focal_l_2x', 'semfpn_regionvit_s_80k', 'cls_rmt_t_in1k']
)
def test_a_config_that_fits_is_left_alone(name):
    """As one that was saved, and is given again with the same data."""
    cfg = get_config(name)
    for _ in range(2):
        fit_schedule(cfg, num_images=83, batch_size=2, epochs=20, processes=1)
        fitted = copy.deepcopy(cfg.to_dict())
    fit_schedule(cfg, num_images=83, batch_size=2, epochs=20, processes=1)
    assert cfg.param_scheduler == fitted['param_scheduler']
    assert rates(cfg, 840) == pytest.approx(rates(Config(fitted), 840))
    once = get_config(name)
    fit_schedule(once, num_images=83, batch_size=2, epochs=20, processes=1)
    assert once.param_scheduler == cfg.param_scheduler


@pytest.mark.parametrize(
    'scheduler, total, words',
    [
        (
            dict(type='LinearLR', by_epoch=False, begin=0, end=1000),
            900,
            'rises for 1000 iterations',
        ),
        (dict(type='LinearLR', by_epoch=False, begin=0, end=900), 900, None),
        (dict(type='MultiStepLR', by_epoch=False, milestones=[50, 80]), 900, 'ends at 80, within'),
        (dict(type='MultiStepLR', by_epoch=False, milestones=[50, 800]), 900, None),
        (dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11]), 900, None),
        (
            dict(type='CosineAnnealingLR', by_epoch=False, end=90),
            900,
            'within the first of 9 epochs',
        ),
        (dict(type='CosineAnnealingLR', by_epoch=False, end=90), 90, None),
        (dict(type='PolyLR', by_epoch=False), 900, None),
    ],
)
def test_a_schedule_that_does_not_fit_is_warned_of(scheduler, total, words):
    found = [*schedule_warnings([scheduler], total, epoch=100)]
    assert [words in warning for warning in found] == ([True] if words else [])


def rates(cfg, total):
    """The learning rate of each step, by mmengine's schedulers."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], cfg.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer))
        for scheduler in copy.deepcopy(cfg.param_scheduler)
    ]
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return found


@pytest.mark.parametrize(
    'name, epochs, part',
    [
        ('maskrcnn_regionvit_s_1x', None, 0.1),
        ('maskrcnn_regionvit_s_1x', 1, 0.1),
        ('maskrcnn_regionvit_s_3x', None, 0.1),
        ('retinanet_vil_s_1x', 5, 0.1),
        ('dyhead_focal_l_2x', 3, 0.1),
        ('semfpn_regionvit_s_80k', 4, 0),
        ('upernet_focal_t_160k', None, 0.1),
        ('cls_regionvit_s_in1k', 30, 0.1),
        ('cls_focal_t_in1k', 30, 20 / 300),
    ],
)
def test_the_rate_rises_falls_and_fits(name, epochs, part):
    cfg = get_config(name)
    old = copy.deepcopy(cfg)
    said = fit_schedule(cfg, num_images=83, batch_size=2, epochs=epochs, processes=1)
    steps = math.ceil(83 / 2)
    length = epochs or 72  # of 42 steps: 3,000
    total = length * steps
    loop = cfg.train_cfg
    assert (loop.get('max_epochs') or loop.max_iters / steps) == length
    assert said[0].startswith(f'{length} epochs of {steps} steps with 2 images each')
    base, peak = old.auto_scale_lr.base_batch_size, cfg.optim_wrapper.optimizer.lr
    assert peak == pytest.approx(old.optim_wrapper.optimizer.lr * math.sqrt(2 / base), rel=1e-2)
    found = rates(cfg, total)
    top = max(found)
    assert top == pytest.approx(peak)
    assert abs(found.index(top) - part * total) <= 2 and found[-1] < 0.12 * peak
    if part:
        assert found[0] < 0.1 * peak
    milestones = next((s.milestones for s in old.param_scheduler if 'milestones' in s), None)
    if milestones:
        whole = old.train_cfg.get('max_epochs') or old.train_cfg.max_iters
        for at in milestones:
            place = round(at / whole * total)
            assert found[place] == pytest.approx(0.1 * found[place - 1])


def test_batches_are_no_larger_than_the_data():
    cfg = get_config('cls_regionvit_s_in1k')
    said = fit_schedule(cfg, num_images=50, batch_size=None, epochs=2, processes=2)
    assert cfg.train_dataloader.batch_size == 25
    assert said[0].startswith('2 epochs of 1 steps with 50 images each')


def test_a_rate_set_by_hand_stays():
    cfg = get_config('maskrcnn_regionvit_s_1x')
    said = fit_schedule(cfg, 83, batch_size=2, epochs=1, processes=1, own_rate=True)
    assert cfg.optim_wrapper.optimizer.lr == 1e-4 and len(said) == 1


@pytest.mark.parametrize(
    'name, change, words',
    [
        ('maskrcnn_regionvit_s_1x', dict(type='StepLR', step_size=1), 'not StepLR'),
        ('upernet_focal_t_160k', None, '--batch-size 2 for example'),
    ],
)
def test_what_does_not_fit_is_refused(name, change, words):
    cfg = get_config(name)
    if change:
        cfg.param_scheduler.append(change)
    with pytest.raises(ValueError, match=words):
        fit_schedule(cfg, 83, batch_size=1, epochs=1, processes=1)


def test_averages_follow_a_short_training():
    cfg = get_config('cls_rmt_s_in1k')
    (hook,) = (hook for hook in cfg.custom_hooks if hook.type == 'EMAHook')
    fit_schedule(cfg, num_images=64, batch_size=8, epochs=10, processes=1)
    assert hook.momentum == pytest.approx(10 / 80)


@pytest.mark.parametrize('text', ['0', '-1'])
def test_numbers_are_at_least_one(text):
    with pytest.raises(argparse.ArgumentTypeError, match='at least 1'):
        positive(text)
