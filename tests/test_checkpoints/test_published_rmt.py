"""Published RMT weights: both forms of attention, batch norms, and detectors of its authors."""

import pytest
import torch
from published_files import RMT_FILES, same
from tiny_backbones import image
from torch import nn

from mmvitbackbones.checkpoints import load_published


def test_one_file_in_both_forms_of_attention():
    """On a map of one row the two are equal; a file does not say in which it was trained."""
    state, x, maps = RMT_FILES.state(), image(32, 150, batch=2), []
    for last in ('decomposed', 'whole'):
        model = RMT_FILES.build(attention=['whole', 'decomposed', 'whole', last])
        load_published(model, state)
        with torch.no_grad():
            maps.append(model.double().eval()(x))
    assert maps[0][3].shape == (2, 32, 1, 5)
    for a, b in zip(*maps):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * a.std().item())


@pytest.mark.parametrize('kinds', [('BN', 'SyncBN'), ('SyncBN', 'BN')])
def test_our_own_from_one_gpu_to_several_and_back(kinds):
    """The stem and three downsamplings have statistics."""
    saved, model = (RMT_FILES.build(norm_cfg=dict(type=kind)) for kind in kinds)
    saved.load_state_dict(RMT_FILES.trained().state_dict())
    report = load_published(model, saved.state_dict())
    assert same(model.state_dict(), saved.state_dict())
    assert sum(name.endswith('.num_batches_tracked') for name in report.loaded) == 4 + 3
    synchronised = [m for m in model.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(synchronised) == (4 + 3 if kinds[1] == 'SyncBN' else 0)


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3)])
def test_backbone_of_a_published_detector(out_indices):
    """Its names are the classifier's after a prefix; norms of stages not emitted are left."""
    options = dict(out_norm='output')
    state, classifier = RMT_FILES.state(**options), RMT_FILES.layout().classifier
    backbone = {f'backbone.{n}': tensor for n, tensor in state.items() if n not in classifier}
    model, alone = (RMT_FILES.build(out_indices=out_indices, **options) for _ in range(2))
    report = load_published(model, {'state_dict': {**backbone, 'neck.conv.weight': torch.ones(1)}})
    load_published(alone, state)
    assert report.kind == 'published RMT' and not report.new
    assert 'neck.conv.weight' in report.unused
    assert ('out_norms.0.weight' in report.unused) == (0 not in out_indices)
    assert same(model.state_dict(), alone.state_dict())
