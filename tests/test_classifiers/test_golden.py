"""Published classifiers give their published logits."""

import golden_cases
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain')

from mmengine.registry import MODELS, init_default_scope

from mmvitbackbones.checkpoints import load_published

CASES = {
    'regionvit_tiny_cls': (
        dict(type='RegionViT', arch='tiny', outputs='regional', out_norm=None),
        dict(type='NormAndPool', in_channels=512),
    ),
    'focal_tiny_cls': (
        dict(type='FocalTransformer', arch='tiny', out_norm=None),
        dict(type='NormAndPool', in_channels=768, eps=1e-5),
    ),
    'rmt_tiny_cls': (
        dict(type='RMT', arch='tiny', out_norm=None),
        dict(type='ProjectAndPool', in_channels=512),
    ),
    'vil_tiny_rpe': (
        dict(type='VisionLongformer', arch='tiny', out_norm=None),
        dict(type='NormAndPool', in_channels=384),
    ),
}


def build(backbone, neck, channels):
    init_default_scope('mmpretrain')
    backbone = dict(backbone, out_indices=(3,))
    head = dict(type='LinearClsHead', num_classes=1000, in_channels=channels)
    return MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head))


@pytest.mark.parametrize('name', CASES)
def test_logits(name):
    case = golden_cases.GoldenCase(name)
    backbone, neck = CASES[name]
    model = build(backbone, neck, 1024 if neck['type'] == 'ProjectAndPool' else neck['in_channels'])
    report = load_published(model, case.weights())
    assert not report.new and not report.resized
    # In ViL's last blocks of a stage two biases of global tokens are left out.
    params = sum(p.numel() for p in model.parameters())
    left_out = sum(n.endswith('g2g_relative_position_bias') for n in case.keys)
    print(params, case.info['params'], left_out)
    logits = case.arrays['logits']
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        with torch.no_grad():
            found = model.to(dtype).eval()(case.image().to(dtype)).double().numpy()
        assert np.abs(found - logits).max() <= tolerance * logits.std()
