"""Every config as it is takes a training step and an evaluation on the demo's data.

Without ``-m ''`` only one of each toolbox is run: narrow models with the other heads are in
``test_running/test_demo.py`` and ``test_run.py``.
"""

import json
import math

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmseg')

from running_tools import train_demo

from mmvitbackbones.zoo import get_config, head_of, read_zoo

ALWAYS = {'maskrcnn_vil_t_3x', 'semfpn_rmt_t_80k', 'cls_regionvit_ti_in1k'}


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=() if name in ALWAYS else pytest.mark.sweep)
        for name in read_zoo().rows
    ],
)
def test_a_training_step_and_an_evaluation(name, tmp_path):
    options = ['default_hooks.checkpoint=None']
    if name.endswith('x'):
        # After one step scores are low: let some pass, so that there is something to evaluate.
        part = 'rcnn.' if get_config(name).model.test_cfg.get('rcnn') else ''
        if head_of(name) != 'sparsercnn':  # which has no threshold
            options.append(f'model.test_cfg.{part}score_thr=0.0')
    train_demo(name, tmp_path, options)
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    step, evaluation = map(json.loads, log.read_text().splitlines())
    assert math.isfinite(step['loss'])
    metrics = dict(cls='accuracy/top1', semfpn='mIoU', upernet='mIoU')
    metric = metrics.get(head_of(name), 'coco/bbox_mAP')
    assert 0 <= evaluation[metric] <= 100
    assert ('coco/segm_mAP' in evaluation) == ('maskrcnn' in name or 'htc' in name)


@pytest.mark.sweep
@pytest.mark.parametrize('family', ['regionvit', 'focal', 'rmt', 'vil'])
def test_classifiers_learn_digits(family, tmp_path):
    """At least 95 % of digits that no training has seen."""
    options = ['demo.max_iters=300', 'demo.log_interval=50', 'val_dataloader.dataset.indices=357']
    train_demo(f'demo_cls_{family}', tmp_path, options)
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    assert json.loads(log.read_text().splitlines()[-1])['accuracy/top1'] >= 95
