"""Several processes on CPUs: what each computes, and that together they are one training."""

import os
import pickle
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import own_data_folders as folders
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS
from narrow_configs import narrow_config
from running_tools import ROOT, command_line, run, succeed, without_workers
from tiny_backbones import build, image, weighed
from torch import distributed, multiprocessing

from mmvitbackbones.running.processes import join_processes_on_cpu
from mmvitbackbones.zoo import get_config

# Of the backbones.

SIZE = (65, 91)
SEEDS = [(1, 2), (3, 3)]  # of the two processes in each iteration
GROUP_NORM = dict(norm_cfg=dict(type='GN', num_groups=2))
# None of them draws or takes statistics of a batch.
INDEPENDENT = {
    'RegionViT': ('RegionViT', {}),
    'FocalTransformer': ('FocalTransformer', {}),
    'VisionLongformer': ('VisionLongformer', {}),
    'RMT, norms as in evaluation': ('RMT', dict(norm_eval=True)),
    'RMT, group norms': ('RMT', GROUP_NORM),
}
INDEPENDENT |= {
    f'{name}, checkpointed': (family, {**options, 'with_cp': True})
    for name, (family, options) in INDEPENDENT.items()
}
SHIFTED = {
    'shifted': ('VisionLongformer', dict(shift_mode=1)),
    'shifted, checkpointed': ('VisionLongformer', dict(shift_mode=1, with_cp=True)),
}
CASES = {**INDEPENDENT, **SHIFTED, 'batch norms': ('RMT', {})}


@pytest.fixture(scope='module')
def of_processes(tmp_path_factory):
    """By case, what :func:`iterate` returns in each of two processes that train together."""
    folder = tmp_path_factory.mktemp('processes')
    multiprocessing.spawn(train_together, (folder,), nprocs=2)
    first, second = (torch.load(folder / f'{rank}.pt', weights_only=True) for rank in range(2))
    return {name: (first[name], second[name]) for name in CASES}


def train_together(rank, folder):
    """One of the processes; each has half of the images."""
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='localhost', LOCAL_RANK=str(rank))
    distributed.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=2),
    )
    found = {}
    for name, (family, options) in CASES.items():
        cfg = Config(dict(model=dict(backbone=dict(type=family, **options))))
        join_processes_on_cpu(cfg)
        model = build(family, **options)
        wrapped = MODEL_WRAPPERS.build({**cfg.model_wrapper_cfg, 'module': model})
        half, seeds = slice(2 * rank, 2 * rank + 2), [pair[rank] for pair in SEEDS]
        found[name] = iterate(model, wrapped, half, seeds)
    torch.save(found, folder / f'{rank}.pt')
    distributed.destroy_process_group()


def iterate(model, forward, part, seeds):
    """The gradients of iterations on part of a batch of four, and the buffers in the end."""
    model.train()  # which norm_eval acts in
    gradients = []
    for number, seed in enumerate(seeds):
        images = image(*SIZE, batch=4, seed=number)[part]
        torch.manual_seed(seed)
        model.zero_grad()
        mean_loss(forward(images)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    buffers = {name: b.clone() for name, b in model.named_buffers() if b.is_floating_point()}
    return gradients, buffers


def mean_loss(maps):
    """A mean over images; within an image each value counts differently."""
    images = [[m[i : i + 1] for m in maps] for i in range(len(maps[0]))]
    return sum(weighed(each) for each in images) / len(images)


def alone(name, part, seeds):
    """What :func:`iterate` returns in this process."""
    family, options = CASES[name]
    model = build(family, **options)
    return iterate(model, model, part, seeds)


def halves(name, seeds=SEEDS):
    """The same for each half of the batch: alone, with the weights and the seeds of a process."""
    return [alone(name, slice(2 * r, 2 * r + 2), [pair[r] for pair in seeds]) for r in range(2)]


def difference(found, expected):
    """The largest one, by the largest that was expected."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize('name', CASES)
def test_both_have_the_same_gradients(name, of_processes):
    (first, _), (second, _) = of_processes[name]
    assert len(first) == len(SEEDS)
    assert all(torch.equal(*both) for both in zip(first, second))


@pytest.mark.parametrize('name', INDEPENDENT)
def test_gradients_are_those_of_the_whole_batch(name, of_processes):
    expected, _ = alone(name, slice(None), [0, 0])
    for found, gradient in zip(of_processes[name][0][0], expected):
        assert difference(found, gradient) < 1e-12


@pytest.mark.parametrize('name', SHIFTED)
def test_random_shifts_are_drawn_by_each_process(name, of_processes):
    """Each by its own generator: other neighbours for other seeds."""
    found = of_processes[name][0][0]
    of_halves = [gradients for gradients, _ in halves(name)]
    for gradient, *both in zip(found, *of_halves):
        assert difference(gradient, sum(both) / 2) < 1e-12
    # As if both had drawn what the first did.
    of_halves = [gradients for gradients, _ in halves(name, [(a, a) for a, _ in SEEDS])]
    shared = [sum(both) / 2 for both in zip(*of_halves)]
    distances = [difference(gradient, expected) for gradient, expected in zip(found, shared)]
    assert distances[0] > 1e-3 and distances[1] < 1e-12


def test_batch_norms_take_the_statistics_of_each_process(of_processes):
    """In the loss, and in what they keep for evaluation."""
    of_halves = halves('batch norms')
    whole, _ = alone('batch norms', slice(None), [0, 0])
    found = of_processes['batch norms']
    for number, gradient in enumerate(found[0][0]):
        expected = sum(gradients[number] for gradients, _ in of_halves) / 2
        assert difference(gradient, expected) < 1e-12
        assert difference(gradient, whole[number]) > 1e-3
    kept = [name for name in found[0][1] if 'running' in name]
    assert len(kept) == 2 * 7  # four norms in the stem, three in the downsampling
    for name in kept:
        for (_, buffers), (_, expected) in zip(found, of_halves):
            torch.testing.assert_close(buffers[name], expected[name], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(found[0][1][name], found[1][1][name])


# Of the tools.

FEW = ('val_dataloader.dataset.indices=5', *without_workers('train', 'val', 'test'))
TESTED = ('test_dataloader.dataset.indices=5', *without_workers('test'))
RECALL = '{}_evaluator.metric=[bbox,segm,proposal]'


def launch(tool, *arguments, options=()):
    """Run ``tools/TOOL.py`` in two processes, on a CPU wherever it is."""
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    command += ['--nproc-per-node', '2']
    command += command_line(tool, [*arguments, '--launcher', 'pytorch'], options)
    paths = [str(ROOT), str(ROOT / 'tests'), os.environ.get('PYTHONPATH', '')]
    environment = dict(
        OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='-1', PYTHONPATH=os.pathsep.join(paths)
    )
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def write_narrow(cfg, folder):
    """Write a config whose training is checked by EqualRanksHook, after its own hooks."""
    cfg.custom_imports = dict(imports=['mmvitbackbones', 'equal_ranks'])
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), dict(type='EqualRanksHook')]
    path = Path(folder) / f'{Path(cfg.filename).stem}.py'
    cfg.dump(path)
    return path


def check_training(log, steps):
    """Finite losses, and equal weights after each of the steps."""
    losses = [float(loss) for loss in re.findall(r' loss: (\S+)', log)]
    assert len(losses) == steps and np.isfinite(losses).all()
    assert log.count('equal in both processes: ') == steps


def metrics(log):
    """Those of the last evaluation, as printed."""
    line = re.findall(r'\((?:val|test)\) [\[\]\d/]+ +(\S+/.*?) +data_time', log)[-1]
    return dict(re.findall(r'(\S+): (\S+)', line))


def train_demo_together(name, folder, backbone=None, more=()):
    cfg = narrow_config(name, {'model.test_cfg.rcnn.score_thr': 0.0})
    cfg.model.backbone.update(backbone or {})
    config = write_narrow(cfg, folder)
    options = ['demo.max_iters=3', 'demo.log_interval=1', 'randomness.seed=0', *FEW, *more]
    return config, succeed(
        *('train', config, '--demo', '--work-dir', folder), how=launch, options=options
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A narrow Mask R-CNN, whose ViL shifts at random, and what its training printed."""
    pytest.importorskip('mmdet')
    folder = tmp_path_factory.mktemp('trained')
    name = 'maskrcnn_vil_t_1x'
    config, log = train_demo_together(name, folder, dict(shift_mode=1), [RECALL.format('val')])
    return config, folder, log


def test_training_and_evaluating_a_detector(trained):
    _, folder, log = trained
    assert 'GPU number: 2' in log
    check_training(log, steps=3)
    assert float(metrics(log)['coco/AR@1000']) > 0 and 'coco/segm_mAP' in metrics(log)
    assert (folder / 'iter_3.pth').is_file()


def test_resuming_a_detector(trained):
    config, folder, _ = trained
    options = ['train_cfg.max_iters=5', 'train_cfg.val_interval=5', *FEW]
    arguments = ('train', config, '--demo', '--work-dir', folder, '--resume')
    options += ['default_hooks.logger.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=-1']
    log = succeed(*arguments, how=launch, options=options)
    assert 'resumed epoch: 0, iter: 3' in log and 'Iter(train) [5/5]' in log
    check_training(log, steps=2)
    assert 'coco/segm_mAP' in metrics(log)


def test_testing_a_detector(trained, tmp_path):
    """Five images: one process sees three, the other two and one of them again."""
    config, folder, log = trained
    said, predictions = [], []
    for how in (launch, run):
        out = tmp_path / f'{how.__name__}.pkl'
        arguments = ('test', config, folder / 'iter_3.pth', '--demo', '--work-dir', tmp_path)
        options = [*TESTED, RECALL.format('test')]
        said.append(metrics(succeed(*arguments, '--out', out, how=how, options=options)))
        predictions.append(pickle.loads(out.read_bytes()))
    for metric in said[1].keys() - {'time'}:
        assert said[0][metric] == said[1][metric] == metrics(log)[metric]
    assert float(said[0]['coco/AR@1000']) > 0 and len(said[0]) > 12
    assert len(predictions[0]) == len(predictions[1]) == 5
    for ours, expected in zip(*predictions):
        assert ours['img_id'] == expected['img_id']
        boxes = [each['pred_instances']['bboxes'] for each in (ours, expected)]
        assert len(boxes[0]) > 0
        torch.testing.assert_close(*boxes, rtol=1e-4, atol=1e-3)


def test_pictures_of_some_images_alone_are_refused(trained, tmp_path, second_process):
    """The toolboxes draw what the first process sees, and nothing of the others'."""
    config, folder, _ = trained
    arguments = ('test', config, folder / 'iter_3.pth', '--demo', '--work-dir', tmp_path)
    done = run(*arguments, '--show-dir', tmp_path / 'pictures', options=TESTED)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        'error: --show-dir would draw the images of the first of 2 processes alone: draw without '
        '--launcher'
    )
    assert not (tmp_path / 'pictures').exists()


@pytest.mark.sweep
@pytest.mark.parametrize(
    'name, backbone',
    [('regionvit_s', {}), ('focal_t', {}), ('rmt_t', {}), ('rmt_t', dict(norm_eval=False))],
)
def test_training_a_detector_of_another_family(name, backbone, tmp_path):
    pytest.importorskip('mmdet')
    _, log = train_demo_together(f'maskrcnn_{name}_1x', tmp_path, backbone)
    check_training(log, steps=3)
    assert 'coco/segm_mAP' in metrics(log)


@pytest.mark.sweep
def test_own_data(tmp_path):
    """Five images to learn from, three to judge by; both processes write the annotations."""
    pytest.importorskip('mmdet')
    data = tmp_path / 'data'
    folders.make_yolo(data, train=6, val=3)
    config = write_narrow(
        narrow_config('retinanet_rmt_t_1x', {'model.test_cfg.score_thr': 0.0}), tmp_path
    )
    log = succeed(
        *('train', config, '--data', data, '--work-dir', tmp_path, '--image-size', 64, 96),
        *('--workers', 0, '--batch-size', 1, '--epochs', 2),
        how=launch,
        options=['default_hooks.logger.interval=1'],
    )
    assert log.count('2 epochs of 3 steps with 2 images each') == 1
    check_training(log, steps=6)
    assert 'coco/bbox_mAP' in metrics(log)
    assert (tmp_path / 'epoch_2.pth').is_file()


@pytest.mark.sweep
def test_own_data_of_a_classifier(tmp_path):
    """Its sampler and the average of its weights know of both processes, too."""
    pytest.importorskip('mmpretrain')
    data = tmp_path / 'data'
    folders.make_class_folders(data, train=5)
    cfg = get_config('cls_rmt_t_in1k')
    cfg.model.backbone.arch = narrow_config('retinanet_rmt_t_1x').model.backbone.arch
    cfg.model.neck.in_channels = cfg.model.backbone.arch['dims'][-1]
    config = write_narrow(cfg, tmp_path)
    arguments = ['--data', data, '--work-dir', tmp_path, '--image-size', 64, '--batch-size', 2]
    log = succeed(
        *('train', config, *arguments, '--epochs', 2),
        how=launch,
        options=['default_hooks.logger.interval=1', 'randomness.seed=0'],
    )
    assert log.count('2 epochs of 7 steps with 4 images each') == 1
    check_training(log, steps=14)
    scores = []
    for how in (launch, run):
        out = tmp_path / f'{how.__name__}.pkl'
        log = succeed('test', config, tmp_path / 'epoch_2.pth', *arguments, '--out', out, how=how)
        found = pickle.loads(out.read_bytes())
        scores.append((metrics(log)['accuracy/top1'], [each['pred_score'] for each in found]))
    (accuracy, ours), (expected_accuracy, expected) = scores
    assert accuracy == expected_accuracy and len(ours) == len(expected) == 15
    torch.testing.assert_close(torch.stack(ours), torch.stack(expected), rtol=1e-4, atol=1e-5)


# Norms that need GPUs.


@pytest.mark.skipif(torch.cuda.is_available(), reason='they work on GPUs')
@pytest.mark.parametrize(
    'name, option, names',
    [
        ('maskrcnn_rmt_t_1x', 'model.backbone.norm_cfg.type=SyncBN', ['backbone']),
        ('semfpn_rmt_t_80k', 'model.backbone.norm_cfg.type=SyncBN', ['backbone', 'decode_head']),
        ('cascade_maskrcnn_rmt_s_3x', None, [f'roi_head.bbox_head.{k}' for k in range(3)]),
        ('maskrcnn_rmt_t_1x', 'sync_bn=torch', None),
    ],
)
def test_synchronised_norms_are_refused(name, option, names, monkeypatch, tmp_path):
    """In one sentence that says what to do, before the processes wait for each other."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    for key, value in dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=2, MASTER_ADDR='localhost').items():
        monkeypatch.setenv(key, str(value))
    done = run(
        *('train', f'configs/{name}.py', '--demo', '--launcher', 'pytorch'),
        *('--work-dir', tmp_path),
        options=[option] if option else [],
    )
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    expected = 'error: sync_bn=torch needs GPUs: on CPUs leave it out'
    if names:
        changes = ' '.join(f'model.{name}.norm_cfg.type=BN' for name in names)
        expected = (
            'error: norms of type SyncBN need GPUs. On CPUs each process can take the statistics '
            f'of its own images: --cfg-options {changes}'
        )
    assert done.stderr.splitlines()[-1] == expected
    assert not distributed.is_initialized()


@pytest.mark.sweep
def test_what_is_said_to_change_works(tmp_path):
    """Norms inside a list, changed from the command line."""
    pytest.importorskip('mmdet')
    changes = [f'model.roi_head.bbox_head.{k}.norm_cfg.type=BN' for k in range(3)]
    _, log = train_demo_together('cascade_maskrcnn_rmt_s_3x', tmp_path, more=changes)
    check_training(log, steps=3)
