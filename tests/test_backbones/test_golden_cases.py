"""Every family equals the published function."""

import pytest
import torch
from golden_cases import GoldenCase
from published_files import every_golden_case

from mmvitbackbones.checkpoints import load_published


@every_golden_case
def test_golden(files, case):
    """In one test for both types, as the weights take longer to make than to use.

    RMT's angles and decays are float32 values, of which the case's differ from ours in their last
    bits.
    """
    case = GoldenCase(case)
    model = files.build(**files.of_case(case))
    report = load_published(model, case.weights())
    assert not report.new and not report.resized
    double = 1e-6 if files.name == 'RMT' else 1e-9
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, double)):
        with torch.no_grad():
            case.check(model.to(dtype).eval()(case.image().to(dtype)), tolerance)


@every_golden_case
def test_numbers_of_parameters(files, case):
    """Of the published model's, without its classifier and what no output depends on."""
    options = files.of_case(GoldenCase(case))
    layout, model = files.layout(**options), files.shapes_only_model(**options)
    assert sum(p.numel() for p in model.parameters()) == layout.parameters(of_backbone=True)


@pytest.mark.sweep
@every_golden_case
def test_golden_in_bfloat16(files, case):
    """Under autocast, whose numbers have 8 bits: the worst value, in standard deviations."""
    case = GoldenCase(case)
    model = files.build(**files.of_case(case)).eval()
    load_published(model, case.weights())
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        maps = model(case.image().float())
    assert all(x.isfinite().all() for x in maps)
    case.check(maps, 0.25)
