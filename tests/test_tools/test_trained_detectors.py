"""A published detector's file in the tools: recognised, evaluated, and trained further."""

import numpy as np
import pytest
import torch
from golden_cases import GoldenCase

pytest.importorskip('mmdet')

from running_tools import run, succeed, without_workers

CONFIG = 'configs/maskrcnn_regionvit_s_1x.py'
SETTINGS = ("regional_padding='published'", 'in BGR order', "Pillow's bilinear resizing")
FEW = ('demo.size=96', 'demo.batch_size=1', 'test_dataloader.dataset.indices=1')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """As detectron2 writes them: for COCO's 80 classes, and for ten."""
    folder = tmp_path_factory.mktemp('published')
    state = GoldenCase('det_maskrcnn_regionvit_small_exact').weights()
    state = {name: tensor.numpy() for name, tensor in state.items()}
    state['pixel_mean'] = np.ones((3, 1, 1), np.float32)
    state['proposal_generator.anchor_generator.cell_anchors.0'] = np.ones((3, 4), np.float32)
    rest = dict(__author__='theirs', matching_heuristics=True, iteration=np.int64(89999))
    rest['scheduler'] = dict(base_lrs=[np.float64(1e-4)], last_epoch=3)
    torch.save(dict(model=state, **rest), folder / 'of_80.pth')
    predictor = 'roi_heads.box_predictor.'
    for name, count in ((f'{predictor}cls_score.', 11), (f'{predictor}bbox_pred.', 40)):
        state |= {key: value[-count:] for key, value in state.items() if key.startswith(name)}
    mask = 'roi_heads.mask_head.predictor.'
    state |= {key: value[:10] for key, value in state.items() if key.startswith(mask)}
    torch.save(dict(model=state, **rest), folder / 'of_10.pth')
    return folder


@pytest.mark.parametrize('more', [[], ['--tta']])
def test_it_is_evaluated(files, tmp_path, more):
    log = succeed(
        *('test', CONFIG, files / 'of_10.pth', '--demo', '--work-dir', tmp_path, *more),
        options=[*FEW, 'model.test_cfg.rcnn.score_thr=0.0'],
    )
    for said in ('of_10.pth is a published RegionViT detector', *SETTINGS, 'coco/bbox_mAP'):
        assert said in log, said


def test_other_classes_are_refused(files, tmp_path):
    done = run(
        *('test', CONFIG, files / 'of_80.pth', '--demo', '--work-dir', tmp_path), options=FEW
    )
    assert done.returncode == 2
    assert 'of_80.pth is for 80 classes, the config, as it would run, for 10' in done.stderr


def test_it_is_trained_further(files, tmp_path):
    """With heads for other classes; what was set by hand goes before."""
    log = succeed(
        *('train', CONFIG, '--demo', '--work-dir', tmp_path),
        options=[
            *FEW,
            *('demo.max_iters=1', 'demo.log_interval=1', 'val_dataloader.dataset.indices=1'),
            f'load_from={files / "of_80.pth"}',
            'model.backbone.regional_padding=end',
        ],
    )
    new = 'these start new, to be trained (heads for 80 classes there, for 10 here): roi_head'
    for said in (*SETTINGS, new, 'Iter(train) [1/1]'):
        assert said in log, said
    assert "regional_padding='end'" in log  # the config as it runs

    # Its own checkpoint says that it had these settings: in a test, and when it is resumed.
    checkpoint = tmp_path / 'iter_1.pth'
    options = [*FEW, 'demo.max_iters=1', *without_workers('test')]
    log = succeed('test', CONFIG, checkpoint, '--demo', '--print-config', options=options)
    for said in ('trained further from a published detector', *SETTINGS, '103.53'):
        assert said in log, said
    log = succeed(
        *('train', CONFIG, '--demo', '--print-config', '--resume', checkpoint), options=options
    )
    assert 'trained further from a published detector' in log and '103.53' in log
