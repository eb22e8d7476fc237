"""Configs of all kinds on the digit scenes: one step of training and an evaluation."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config import config as mmengine_config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, init_default_scope
from mmengine.runner import Runner

pytest.importorskip('mmdet')

import cv2
from mmdet.models import StandardRoIHead
from mmdet.structures.bbox import bbox_overlaps
from narrow_configs import CONFIGS, narrow_config
from running_tools import own_instances
from yapf.yapflib import yapf_api

from mmvitbackbones import ClassesFirstHook, PredictionGridHook
from mmvitbackbones.datasets import make_digit_scenes
from mmvitbackbones.running import load_config, make_demo_data
from mmvitbackbones.running.demo import use_demo_data

ROOT = Path(__file__).parents[2]
ONE_STEP = {'demo.max_iters': 1, 'demo.log_interval': 1, 'demo.batch_size': 1}


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    """The demo's data are in the folder one is in; threads would spin on tiny operations."""
    monkeypatch.chdir(ROOT)
    make_digit_scenes('data/demo')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


WITHOUT_SEMANTICS = {'model.roi_head.semantic_head': None}
# After one step scores are low: let some pass, so that there is something to evaluate.
NO_THRESHOLD = {'model.test_cfg.rcnn.score_thr': 0.0}
NO_THRESHOLD_OF_ONE_STAGE = {'model.test_cfg.score_thr': 0.0}


@pytest.mark.parametrize(
    'name, options, losses',
    [
        ('cascade_maskrcnn_rmt_s_3x', NO_THRESHOLD, {'s2.loss_mask'}),
        ('htc_rmt_s_1x', NO_THRESHOLD | WITHOUT_SEMANTICS, {'s2.loss_mask'}),
        ('htc_focal_l_3x', NO_THRESHOLD, {'loss_semantic_seg', 's2.loss_mask'}),  # soft-NMS
        ('sparsercnn_focal_t_3x', {}, {'s5.loss_cls'}),  # it has no threshold
        ('atss_focal_t_3x', NO_THRESHOLD_OF_ONE_STAGE, {'loss_centerness'}),
        # RepeatDataset, deformable convolutions.
        ('dyhead_focal_l_2x', NO_THRESHOLD_OF_ONE_STAGE, {'loss_centerness'}),
        # Iterations instead of epochs.
        ('retinanet_regionvit_s_3x', NO_THRESHOLD_OF_ONE_STAGE, {'loss_bbox'}),
    ],
)
def test_one_step_and_an_evaluation(name, options, losses, tmp_path):
    cfg = narrow_config(name, {**ONE_STEP, **options}, work_dir=str(tmp_path), demo=True)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.indices = 1
    with own_instances():
        runner = Runner.from_cfg(cfg)
        runner.train()
    logged = {key.removeprefix('train/') for key in runner.message_hub.log_scalars}
    assert losses <= logged
    assert ('loss_semantic_seg' in logged) == ('loss_semantic_seg' in losses)
    loss = runner.message_hub.get_scalar('train/loss').current()
    assert np.isfinite(loss) and loss > 0
    masks = {'val/coco/segm_mAP'} if 'maskrcnn' in name or 'htc' in name else set()
    metrics = {'val/coco/bbox_mAP', 'val/coco/segm_mAP'} & {*runner.message_hub.log_scalars}
    assert metrics == {'val/coco/bbox_mAP', *masks}
    assert runner.iter == 1 and (tmp_path / 'iter_1.pth').is_file()


def trained(work_dir, **options):
    """The weights after two steps."""
    options = {**ONE_STEP, 'demo.max_iters': 2, 'randomness.seed': 1, **options}
    cfg = narrow_config('maskrcnn_rmt_t_1x', options, work_dir=str(work_dir), demo=True)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    cfg.val_dataloader.dataset.indices = 3
    with own_instances():
        runner = Runner.from_cfg(cfg)
        runner.train()
    return runner.model.state_dict()


def test_pictures_of_the_same_scenes(tmp_path, monkeypatch):
    """A column more each time, and training goes as without them."""
    seen, encode = [], cv2.imencode
    monkeypatch.setattr(cv2, 'imencode', lambda kind, x: seen.append(x) or encode(kind, x))
    hook = dict(type='PredictionGridHook', fractions=[0.5, 1], num_images=2, score_thr=0.0)
    with_pictures = trained(tmp_path / 'with', custom_hooks=[hook])
    # The truth, what was found, and at the end the features.
    first, last = (image[..., ::-1] for image in seen)
    assert first.shape == (24 + 2 * 256, 2 * 256, 3) and last.shape == (24 + 2 * 256, 4 * 256, 3)
    assert np.array_equal(cv2.imread(str(tmp_path / 'with/progress.png')), last[..., ::-1])
    assert np.array_equal(first[:, :512], last[:, :512])
    scenes = first[24:]
    found = [column[24:] for column in np.split(last, 4, axis=1)]
    assert np.array_equal(found[0], scenes[:, :256])
    # Below a score of 0 everything is drawn; features are in colour.
    assert (found[1] != found[2]).any() and found[3].std(axis=(0, 1)).min() > 10
    without = trained(tmp_path / 'without')
    assert all(torch.equal(value, without[name]) for name, value in with_pictures.items())


@pytest.mark.parametrize('fractions', [(), (0,), (0.5, 1.1)])
def test_times_of_pictures_are_checked(fractions):
    with pytest.raises(ValueError, match='fractions must be above 0 and at most 1'):
        PredictionGridHook(fractions)


def test_classes_are_learnt_first(tmp_path, monkeypatch):
    """One step of classes, two of all; the boxes that are classified are near the true ones."""
    steps, moved = [], []

    def classify(head, maps, rois, forward=StandardRoIHead._bbox_forward):
        moved.append(rois[:, 1:])
        return forward(head, maps, rois)

    monkeypatch.setattr(StandardRoIHead, '_bbox_forward', classify)

    @HOOKS.register_module(force=True)
    class Record(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            truth = [sample.gt_instances.bboxes.tensor for sample in data_batch['data_samples']]
            steps.append(({*outputs}, torch.cat(truth), moved.pop()))

    trained(
        tmp_path,
        **{'demo.max_iters': 3, 'demo.warmup': 0},
        custom_hooks=[dict(type='ClassesFirstHook', fraction=0.6), dict(type='Record')],
    )
    losses = [names - {'loss', 'acc'} for names, *_ in steps]
    assert losses[0] == losses[1] == {'loss_cls'}
    assert losses[2] >= {'loss_cls', 'loss_bbox', 'loss_mask', 'loss_rpn_cls'}
    # The boxes are the true ones at first, then others close by.
    assert torch.allclose(steps[0][1], steps[0][2], atol=1e-4)
    assert steps[1][1].shape == steps[1][2].shape
    overlaps = bbox_overlaps(steps[1][1], steps[1][2], is_aligned=True)
    assert 0.3 < overlaps.min() and overlaps.max() < 0.999


def test_classes_first_needs_a_fraction_and_a_box_head(tmp_path):
    with pytest.raises(ValueError, match='fraction must be above 0 and below 1, got 1'):
        ClassesFirstHook(1)
    runner = SimpleNamespace(model=SimpleNamespace(roi_head=SimpleNamespace(bbox_head=[])))
    with pytest.raises(ValueError, match='needs a two-stage detector with one box head'):
        ClassesFirstHook().before_train(runner)


def test_the_text_of_a_config_is_laid_out_once(monkeypatch):
    calls = []
    # OneDL's mmengine imports it anew for each text.
    home = mmengine_config if hasattr(mmengine_config, 'FormatCode') else yapf_api
    lay_out = home.FormatCode
    monkeypatch.setattr(
        home, 'FormatCode', lambda *args, **kw: calls.append(1) or lay_out(*args, **kw)
    )
    cfg = load_config(str(CONFIGS / 'maskrcnn_rmt_t_1x.py'))
    texts = [cfg.pretty_text, copy.deepcopy(cfg).pretty_text, cfg.dump()]
    assert len(calls) == 1 and len({*texts}) == 1
    cfg.model.backbone.drop_path_rate = 0.25
    assert 'drop_path_rate=0.25' in cfg.pretty_text and len(calls) == 2
    assert cfg.pretty_text == Config(cfg._cfg_dict).pretty_text


def test_semantic_labels_are_those_of_the_scenes():
    """The background is 0, digit k is k + 1, and the map is resized with its image."""
    cfg = narrow_config('htc_rmt_s_1x', demo=True)
    assert cfg.model.roi_head.semantic_head.num_classes == 11
    assert {head.num_classes for head in cfg.model.roi_head.mask_head} == {10}
    init_default_scope('mmdet')
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]['data_samples']
    (labels,) = sample.gt_sem_seg.sem_seg.numpy()
    assert labels.shape == sample.img_shape
    name = Path(sample.img_path).stem
    path = ROOT / f'data/demo/annotations/training/{name}.png'
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    size = labels.shape[::-1]
    assert np.array_equal(labels, cv2.resize(stored, size, interpolation=cv2.INTER_NEAREST) - 1)
    instances = sample.gt_instances
    for mask, label in zip(instances.masks.to_ndarray(), instances.labels):
        inside = labels[mask > 0]
        assert (inside == label.item() + 1).mean() > 0.9  # edges are resized differently
    assert (labels == 0).mean() > 0.3


@pytest.mark.parametrize('name', ['maskrcnn_rmt_t_1x', 'semfpn_rmt_t_80k'])
def test_scenes_of_another_size(name):
    cfg = narrow_config(name, {'demo.size': 96}, demo=True)
    init_default_scope(cfg.default_scope)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        sample = DATASETS.build({**loader.dataset, '_scope_': cfg.default_scope})[0]
        assert max(sample['inputs'].shape[1:]) == 96


def test_config_that_lacks_what_most_have():
    """No hooks, no log processor, no switches for them."""
    cfg = Config(dict(narrow_config('maskrcnn_rmt_s_1x')._cfg_dict))
    for key in ('default_hooks', 'log_processor', 'auto_scale_lr', 'tta_pipeline', 'val_cfg'):
        cfg.pop(key)
    use_demo_data(cfg, 'data/demo')
    assert cfg.default_hooks.logger == dict(type='LoggerHook', interval=10)
    assert cfg.default_hooks.checkpoint.by_epoch is False and cfg.log_processor.by_epoch is False
    cfg.default_hooks = dict(logger=None, visualization=None)
    use_demo_data(cfg, 'data/demo')
    assert cfg.default_hooks.logger.interval == 10 and cfg.default_hooks.visualization is None


@pytest.mark.parametrize('present', [True, False])
def test_weights_to_start_from(present, tmp_path, monkeypatch):
    """Those that are there are loaded, the demo does without the others."""
    monkeypatch.chdir(tmp_path)
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = '{CONFIGS}/maskrcnn_rmt_t_1x.py'\nload_from = 'mine.pth'")
    published = load_config(str(config)).model.backbone.init_cfg.checkpoint
    if present:
        for name in ('mine.pth', published):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
    cfg = load_config(str(config), demo=True)
    assert cfg.load_from == ('mine.pth' if present else None)
    init = cfg.model.backbone.init_cfg
    assert (init.checkpoint == published) if present else (init is None)


def test_one_process_of_a_machine_makes_the_data(tmp_path, monkeypatch, second_process):
    monkeypatch.chdir(tmp_path)
    make_demo_data(Config(dict(default_scope='mmpretrain')))
    assert list(tmp_path.iterdir()) == []
