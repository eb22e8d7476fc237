"""RMT equals the published function."""

import golden_cases
import pytest
import torch

from mmvitbackbones import RMT
from mmvitbackbones.checkpoints import load_published

CLASSIFIER = ('proj.', 'norm.', 'head.')


@pytest.mark.parametrize('name', golden_cases.names('rmt'))
def test_golden(name):
    """In one test for both types, as the weights take longer to make than to use.

    Angles and decays are float32 values, of which the case's differ from ours in their last bits.
    """
    case = golden_cases.GoldenCase(name)
    model = RMT(case.info['variant'], out_norm=None)
    classifier = sum(
        torch.Size(shape).numel()
        for key, (shape, _) in case.keys.items()
        if key.startswith(CLASSIFIER) and not key.endswith(('mean', 'var', 'tracked'))
    )
    assert sum(p.numel() for p in model.parameters()) == case.info['params'] - classifier
    report = load_published(model, case.weights())
    assert not report.new and not report.resized
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-6)):
        with torch.no_grad():
            case.check(model.to(dtype).eval()(case.image().to(dtype)), tolerance)
