"""Published classifiers load whole and give their published logits."""

import re

import golden_cases
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain')

from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope

from mmvitbackbones import get_config
from mmvitbackbones.checkpoints import load_published

# By case: the config, and what differs in the backbone.
CASES = {
    'regionvit_tiny_cls': ('cls_regionvit_ti_in1k', {}),
    'focal_tiny_cls': ('cls_focal_t_in1k', {}),
    'rmt_tiny_cls': ('cls_rmt_t_in1k', {}),
    'vil_tiny_rpe': ('cls_vil_t_in1k', dict(position='rpb')),
}


def build(name, classes=1000, **options):
    """The classifier of a config."""
    init_default_scope('mmpretrain')
    config, changes = CASES[name]
    model = get_config(config).model
    model.backbone.update(changes, **options)
    model.head.num_classes = classes
    return MODELS.build(model)


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
    # RMT's angles and decays are float32 values: the case's differ from ours in their last bits.
    double = 1e-6 if name.startswith('rmt') else 1e-9
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, double)):
        with torch.no_grad():
            found = model.to(dtype).eval()(case.image().to(dtype)).double().numpy()
        assert np.abs(found - logits).max() <= tolerance * logits.std()


@pytest.mark.parametrize(
    'case, config',
    [('vil_tiny_ape', 'cls_vil_t_in1k'), ('focal_tiny_useconv', 'cls_focal_t_conv_embed_in1k')],
)
def test_other_configs_take_their_published_files(case, config):
    init_default_scope('mmpretrain')
    model = MODELS.build(get_config(config).model)
    report = load_published(model, golden_cases.GoldenCase(case).weights())
    assert not report.new and not report.resized


def test_other_numbers_of_classes_start_new(caplog):
    case = golden_cases.GoldenCase('focal_tiny_cls')
    model = build('focal_tiny_cls', classes=10)
    before = model.head.fc.weight.clone()
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        report = load_published(model, case.weights())
    finally:
        logger.removeHandler(caplog.handler)
    assert report.new == ['head.fc.weight', 'head.fc.bias'] == report.unused[-2:]
    (warning,) = [record for record in caplog.records if record.levelname == 'WARNING']
    assert (
        'start new, to be trained (heads for 1000 classes there' in warning.message
        and 'head.fc.weight' in warning.message
    )
    assert torch.equal(model.head.fc.weight, before)
    assert torch.equal(model.neck.norm.weight, case.weights()['norm.weight'])


def test_the_last_global_token_is_not_lost():
    """A ViL with one has logits of its own: the mean of all tokens, that one included."""
    case = golden_cases.GoldenCase('vil_tiny_rpe')
    weights = case.weights()
    for key, tensor in list(weights.items()):
        of_third = re.fullmatch(r'layer3\.(0\.cls_token|1\.attn\.g2[gl].*)', key)
        if of_third:  # as many heads in the last stage as twice those, and twice as wide
            axis = tensor.ndim - 1 if 'cls_token' in key else key.count('g2l')
            weights[key.replace('layer3', 'layer4')] = torch.cat([tensor, tensor], axis)
    for options in ({}, dict(num_global_tokens=1), dict(outputs='all')):
        with pytest.raises(ValueError, match="num_global_tokens=1 and outputs='all'"):
            load_published(build('vil_tiny_rpe', **options), weights)
    model = build('vil_tiny_rpe', num_global_tokens=1, outputs='all')
    report = load_published(model, weights)
    assert not report.new
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (tokens,) = model.eval().backbone(x)
        assert tokens.shape == (1, 384, 1 + 2 * 2)
        expected = model.head.fc(model.neck.norm(tokens.transpose(1, 2)).mean(1))
        torch.testing.assert_close(model(x), expected)
    with pytest.raises(ValueError, match='num_global_tokens=1'):  # one of our own, too
        load_published(build('vil_tiny_rpe'), model.state_dict())
    backbone = build('vil_tiny_rpe').backbone  # a detector's, say, needs none
    assert 'stages.3.global_tokens' in load_published(backbone, weights).unused


def test_from_a_classifier_of_other_windows_and_classes():
    """As from ImageNet-21K at 224 x 224 to ImageNet-1K at 384 x 384."""
    first = build('regionvit_tiny_cls', classes=21)
    torch.nn.init.normal_(first.neck.norm.weight)
    second = build('regionvit_tiny_cls', classes=10, window_size=12)
    report = load_published(second, {'state_dict': first.state_dict()})
    assert report.new == ['head.fc.weight', 'head.fc.bias']
    resized = {name.rpartition('.')[0].rpartition('.')[2] for name in report.resized}
    assert len(report.resized) == 1 + 14 and resized == {'regional', 'bias'}
    assert second.backbone.stem.regional.weight.shape[-2:] == (48, 48)
    assert torch.equal(second.neck.norm.weight, first.neck.norm.weight)
    assert second(torch.randn(1, 3, 96, 96)).shape == (1, 10)


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
    options = get_config(CASES[name][0]).model.backbone
    options.update(CASES[name][1])
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'epoch_1.pth'))
    detectors = MODELS.build(dict(options, init_cfg=init_cfg))
    detectors.init_weights()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, found = first.backbone.eval()(x), detectors.eval()(x)
    assert torch.equal(found[0], expected[0])
