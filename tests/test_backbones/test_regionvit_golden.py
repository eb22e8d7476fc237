"""RegionViT equals the published function."""

import golden_cases
import pytest
import torch

from mmvitbackbones import RegionViT
from mmvitbackbones.checkpoints import load_published

ARCHS = {'tiny': 'tiny', 'base': 'base', 'small_w14_peg': 'small_plus'}


@pytest.mark.parametrize('name', golden_cases.names('regionvit'))
def test_golden(name):
    """In one test for both types, as the weights take longer to make than to use."""
    case = golden_cases.GoldenCase(name)
    model = RegionViT(
        ARCHS[case.info['variant']],
        peg='peg' in case.info['variant'],
        out_norm='inline' if 'kwargs' in case.info else None,
    )
    report = load_published(model, case.weights())
    assert not report.new and not report.resized
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        with torch.no_grad():
            case.check(model.to(dtype).eval()(case.image().to(dtype)), tolerance)
