"""Published classifiers load whole and give their published logits."""

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


def build(name, classes=1000):
    init_default_scope('mmpretrain')
    backbone, neck = CASES[name]
    channels = 1024 if neck['type'] == 'ProjectAndPool' else neck['in_channels']
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(backbone, out_indices=(3,)),
            neck=neck,
            head=dict(type='LinearClsHead', num_classes=classes, in_channels=channels),
        )
    )


@pytest.mark.parametrize('name', CASES)
def test_logits(name):
    case = golden_cases.GoldenCase(name)
    model = build(name)
    report = load_published(model, case.weights())
    assert not report.new and not report.resized
    # Of ViL's global tokens in the last block of a stage nothing reads two biases; so much are they
    # with one token, as many heads as there are, in the first three stages.
    left_out = 2 * (1 + 3 + 3) if name.startswith('vil') else 0
    assert sum(p.numel() for p in model.parameters()) == case.info['params'] - left_out
    logits = case.arrays['logits']
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        with torch.no_grad():
            found = model.to(dtype).eval()(case.image().to(dtype)).double().numpy()
        assert np.abs(found - logits).max() <= tolerance * logits.std()


def test_other_numbers_of_classes_start_new(caplog):
    case = golden_cases.GoldenCase('focal_tiny_cls')
    model = build('focal_tiny_cls', classes=10)
    before = model.head.fc.weight.clone()
    report = load_published(model, case.weights())
    assert report.new == ['head.fc.weight', 'head.fc.bias']
    assert torch.equal(model.head.fc.weight, before)
    assert torch.equal(model.neck.norm.weight, case.weights()['norm.weight'])


@pytest.mark.parametrize('change', ['missing', 'other shape', 'other neck'])
def test_what_does_not_fit_is_refused(change):
    weights = golden_cases.GoldenCase('focal_tiny_cls').weights()
    if change == 'missing':
        del weights['norm.bias']
    elif change == 'other shape':
        weights['norm.bias'] = torch.zeros(5)
    else:
        weights['proj.weight'] = torch.zeros(5, 5)
    model = build('focal_tiny_cls')
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match='neck.(norm.bias|proj.weight)'):
        load_published(model, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize('name', ['focal_tiny_cls', 'vil_tiny_rpe'])
def test_our_own_checkpoints(name, tmp_path):
    """A trained classifier's goes into a classifier, and into a detector's backbone."""
    first, second = build(name), build(name)
    torch.save(dict(state_dict=first.state_dict(), meta={}), tmp_path / 'epoch_1.pth')
    report = load_published(second, tmp_path / 'epoch_1.pth')
    assert not report.new and not report.unused
    for key, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], tensor)
    options = dict(CASES[name][0], out_indices=(3,))
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'epoch_1.pth'))
    detectors = MODELS.build(dict(options, init_cfg=init_cfg))
    detectors.init_weights()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = first.backbone.eval()(x), detectors.eval()(x)
    assert torch.equal(found[0], expected[0])
