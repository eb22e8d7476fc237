"""``tools/test.py --tta``, as a user would run it."""

import pickle
import re

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

pytest.importorskip('mmdet')

from narrow_configs import narrow_config
from running_tools import succeed, without_workers


def save(cfg, folder):
    """The config as one file, and a checkpoint of its model with random weights."""
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'model.pth')
    cfg.dump(folder / 'config.py')
    return folder / 'config.py', folder / 'model.pth'


def evaluate(files, folder):
    arguments = [*files, '--demo', '--tta', '--work-dir', folder, '--out', folder / 'found.pkl']
    arguments += ['--show-dir', folder / 'shown']
    options = ['test_dataloader.dataset.indices=2', *without_workers('test')]
    log = succeed('test', *arguments, options=options)
    assert 'missing keys' not in log
    return log, pickle.loads((folder / 'found.pkl').read_bytes())


def test_boxes_and_masks(tmp_path):
    cfg = narrow_config('htc_rmt_s_1x', {'model.test_cfg.rcnn.score_thr': 0.0}, demo=True)
    files = save(cfg, tmp_path)
    log, found = evaluate(files, tmp_path)
    assert 'coco/bbox_mAP: ' in log and 'coco/segm_mAP: ' in log
    assert len(found) == 2 and len(list((tmp_path / 'shown').glob('*.jpg'))) == 2
    for sample in found:
        instances = sample['pred_instances']
        assert len(instances['masks']) == len(instances['scores']) == 100
        assert instances['masks'][0]['size'] == list(sample['ori_shape'])


def test_segmenter(tmp_path):
    pytest.importorskip('mmseg')
    cfg = narrow_config('semfpn_rmt_t_80k', demo=True)
    log, found = evaluate(save(cfg, tmp_path), tmp_path)
    assert re.search(r'mIoU: \d', log) and len(found) == 2
    assert len(list(tmp_path.rglob('shown/**/*.png'))) == 2
