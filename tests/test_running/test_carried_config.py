"""The config in a checkpoint is read, and nothing that it says is run."""

import pytest
from mmengine.config import Config

pytest.importorskip('mmdet')

from narrow_configs import narrow_config

from mmvitbackbones.running.carried_config import carried_config
from mmvitbackbones.running.predicting import config_for

MODEL = "default_scope = 'mmdet'\nmodel = dict(type='RetinaNet', {})\n"


def carried(text):
    return carried_config(dict(meta=dict(cfg=text)), 'mine.pth')


@pytest.mark.parametrize('name', ['htc_rmt_s_1x', 'semfpn_vil_s_80k', 'retinanet_focal_t_1x'])
def test_as_mmengine_reads_it(name):
    text = narrow_config(name).pretty_text
    assert carried(text)._cfg_dict == Config.fromstring(text, '.py')._cfg_dict


def test_forms_that_mmengine_writes():
    cfg = Config(
        {
            'a': {'not-a-name': {'x': -1.5}, 7: (1,), 'k': None},
            'b': [float('inf'), 'text', [dict()]],
        }
    )
    assert carried(cfg.pretty_text)._cfg_dict == cfg._cfg_dict


def test_without():
    for checkpoint in ({}, dict(meta=None), dict(meta={}), dict(meta=dict(cfg=3))):
        assert carried_config(checkpoint, 'mine.pth') is None
        with pytest.raises(ValueError, match='^mine.pth carries no config: .* by --config$'):
            config_for(checkpoint, 'mine.pth', None, None)


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        "a = __import__('os').system('true')",
        'a = [x for x in ()]',
        'a = dict(**dict(b=1))',
        'a = dict([], [])',
        'a.b = 1',
        'a = b = 1',
        "a = f'{1}'",
        'a = {**{}}',
        'a = (',
    ],
)
def test_more_than_settings(text):
    with pytest.raises(ValueError, match='^the config in mine.pth holds more than settings: '):
        carried(text)


@pytest.mark.parametrize(
    'part, kind',
    [
        ("neck=dict(type='os.system', command='true')", 'os.system'),
        ("neck=dict(type='mmengine.call_command', cmd=['true'])", 'mmengine.call_command'),
        ("neck=dict(type='FPN.mine')", 'FPN.mine'),
        ("test_cfg=dict(nms=dict(type='__import__'))", '__import__'),
        ("neck=[dict(type='mmseg.NoSuchNeck')]", 'mmseg.NoSuchNeck'),
        ("tracker=dict(type='CameraMotionCompensation')", 'CameraMotionCompensation'),
    ],
)
def test_parts_of_no_toolbox(part, kind):
    """mmengine would take any function of any package as a type, mmcv evaluates nms's."""
    with pytest.raises(ValueError, match='names parts that mmdet does not have') as error:
        carried(MODEL.format(part))
    assert f'({kind})' in str(error.value)


def test_parts_of_toolboxes():
    part = "neck=dict(type='mmdet.FPN'), test_cfg=dict(nms=dict(type='soft_nms'))"
    assert carried(MODEL.format(part)).model.neck.type == 'mmdet.FPN'
