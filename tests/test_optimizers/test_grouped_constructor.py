"""One group for all parameters with the same settings trains as one group a parameter does."""

import copy
import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from running_tools import own_instances
from tiny_backbones import OPTIONS, build, image, weighed

CFG = dict(
    optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'stem': dict(lr_mult=0.1)}),
)


@pytest.fixture(autouse=True)
def lines():
    """What is logged."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    with own_instances():
        MMLogger.get_instance('test').addHandler(handler)
        yield lines


@pytest.mark.parametrize('family', OPTIONS)
def test_a_step_is_the_same(family, lines):
    x = image(40, 56)
    models, counts, logged = [], [], []
    for constructor in ('DefaultOptimWrapperConstructor', 'GroupedOptimWrapperConstructor'):
        model = build(family)
        lines.clear()
        wrapper = build_optim_wrapper(model, copy.deepcopy(dict(CFG, constructor=constructor)))
        # Beside registries' messages, which are for debugging.
        logged.append(sum('registry' not in line for line in lines))
        for _ in range(2):
            wrapper.update_params(weighed(model(x)))
        models.append(model)
        counts.append(len(wrapper.optimizer.param_groups))
    parameters = [dict(model.named_parameters()) for model in models]
    assert all(torch.equal(p, parameters[1][name]) for name, p in parameters[0].items())
    assert counts == [len(parameters[0]), 3] and logged[1] == 3 < logged[0]


def test_without_settings_of_single_parameters():
    model = build('RMT')
    cfg = dict(CFG, constructor='GroupedOptimWrapperConstructor', paramwise_cfg=None)
    (group,) = build_optim_wrapper(model, cfg).optimizer.param_groups
    assert len(group['params']) == len([*model.parameters()])


def test_other_messages_are_still_logged(lines):
    model = build('RMT')
    for parameter in model.stages[0].parameters():
        parameter.requires_grad = False
    build_optim_wrapper(model, dict(CFG, constructor='GroupedOptimWrapperConstructor'))
    assert any('is skipped since its requires_grad=False' in line for line in lines)
