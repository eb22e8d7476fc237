"""Checkpoints against the models that they are for."""

import pytest
from torch import nn

from mmvitbackbones.running import check_fit, check_overlap


def model(channels=2, classes=3):
    return nn.ModuleDict(
        dict(backbone=nn.Linear(2, channels), head=nn.Linear(channels, classes, bias=False))
    )


@pytest.mark.parametrize('wrapped', [False, True])
def test_all_has_to_fit(wrapped):
    ours, state = model(), model().state_dict()
    ours = nn.DataParallel(ours) if wrapped else ours
    check_fit(ours, dict(state_dict=state), 'x.pth')
    state['more'] = state.pop('head.weight')
    with pytest.raises(ValueError, match='x.pth.* 1 tensors missing .*; 1 tensors unexpected'):
        check_fit(ours, dict(state_dict=state), 'x.pth')


def test_a_backbone_to_start_from_has_to_fit():
    check_overlap(model(), dict(state_dict=model(classes=5).state_dict()), 'x.pth')
    with pytest.raises(ValueError, match='load_from=x.pth .*backbone.weight'):
        check_overlap(model(), dict(state_dict=model(channels=4).state_dict()), 'x.pth')
