"""ViL equals the published function."""

import re

import golden_cases
import pytest
import torch

from mmvitbackbones import VisionLongformer
from mmvitbackbones.checkpoints import load_published


def options(case):
    """What a published architecture string says: each stage's letters and values."""
    stages = [dict(re.findall(r'([a-z])(\d+)', s)) for s in case.info['variant'].split('_')]
    each = {letter: [int(stage[letter]) for stage in stages] for letter in stages[0]}
    return dict(
        arch=dict(dims=each['d'], heads=each['h'], depths=each['n'], patches=each['p']),
        attention=['vil' if s else 'full' for s in each['s']],
        num_global_tokens=each['g'],
        window_size=each['f'],
        position='ape' if each['a'][0] else 'rpb',
        pretrain_img_size=case.info.get('img_size', 224),
        out_norm=None,
    )


@pytest.mark.parametrize('name', golden_cases.names('vil'))
def test_golden(name):
    """In one test for both types, as the weights take longer to make than to use."""
    case = golden_cases.GoldenCase(name)
    model = VisionLongformer(**options(case))
    classifier = sum(
        torch.Size(shape).numel()
        for key, (shape, _) in case.keys.items()
        if key.startswith(('norm.', 'head.'))
    )
    # Biases of what global tokens learn in a stage's last block, which no output depends on.
    arch, tokens = options(case)['arch'], options(case)['num_global_tokens']
    biased = options(case)['position'] == 'rpb'
    unread = sum(heads * (g + g**2) for heads, g in zip(arch['heads'], tokens)) * biased
    count = sum(p.numel() for p in model.parameters())
    assert count == case.info['params'] - classifier - unread
    weights = case.weights()
    report = load_published(model, weights)
    assert not report.new and not report.resized
    empty = {key for key, tensor in weights.items() if not tensor.numel()}
    index = {key for key in weights if key.endswith('relative_position_index')}
    unread = {name for name in report.unused if '.global_bias.global_to_' in name}
    assert len(unread) == 2 * biased * sum(g > 0 for g in tokens)
    assert {*report.unused} == unread | empty | index | {
        key for key in weights if key.startswith(('norm.', 'head.'))
    }
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        with torch.no_grad():
            case.check(model.to(dtype).eval()(case.image().to(dtype)), tolerance)
