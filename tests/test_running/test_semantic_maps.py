"""HTC's semantic maps: read where the model has a use for them, and asked for by name."""

from importlib.util import find_spec

import pytest

pytest.importorskip('mmdet')

from narrow_configs import CONFIGS, narrow_config

from mmvitbackbones.running import load_config
from mmvitbackbones.running.checks import check_data_presence
from mmvitbackbones.running.nodes import dicts

HTC = str(CONFIGS / 'htc_rmt_s_1x.py')
WITHOUT = {'model.roi_head.semantic_head': None}


def maps_of(cfg):
    """The folder of maps, and whether they are loaded."""
    parts = list(dicts(cfg.train_dataloader))
    prefixes = [part['data_prefix'].get('seg') for part in parts if 'data_prefix' in part]
    return prefixes, any(part.get('with_seg') for part in parts)


def test_one_option_leaves_them_out():
    assert maps_of(load_config(HTC)) == (['stuffthingmaps/train2017/'], True)
    assert maps_of(load_config(HTC, WITHOUT)) == ([None], False)


def test_wrapped_data(tmp_path):
    """Any data set inside any wrapper, its pipeline in pieces."""
    config = tmp_path / 'repeated.py'
    config.write_text(
        f"_base_ = '{HTC}'\n"
        'dataset = _base_.train_dataloader.dataset\n'
        "dataset.pipeline = [dict(type='RandomChoice', transforms=[dataset.pipeline])]\n"
        'train_dataloader = dict(dataset=dict(\n'
        "    _delete_=True, type='RepeatDataset', times=2, dataset=dataset))\n"
    )
    assert maps_of(load_config(str(config))) == (['stuffthingmaps/train2017/'], True)
    assert maps_of(load_config(str(config), WITHOUT)) == ([None], False)


@pytest.mark.parametrize('name', ['panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco'])
def test_other_uses_of_maps_stay(name, tmp_path):
    config = tmp_path / 'panoptic.py'
    config.write_text(f"_base_ = 'mmdet::{name}.py'")
    prefixes, _ = maps_of(load_config(str(config)))
    assert prefixes == ['annotations/panoptic_train2017/']


def test_missing_maps_are_named(tmp_path):
    """All of COCO is there, COCO-stuff is not."""
    for name in ('train2017', 'val2017', 'annotations'):
        (tmp_path / name).mkdir()
        for split in ('train2017', 'val2017'):
            (tmp_path / name / f'instances_{split}.json').touch()
    check_data_presence(load_config(HTC, WITHOUT, data_root=str(tmp_path)), 'train_dataloader')
    with pytest.raises(FileNotFoundError) as caught:
        check_data_presence(load_config(HTC, data_root=str(tmp_path)), 'train_dataloader')
    message = str(caught.value)
    assert f'Missing or empty: {tmp_path}/stuffthingmaps/train2017/.' in message
    assert f'{tmp_path}/stuffthingmaps/train2017/*.png' in message
    for word in ('COCO-stuff', 'cocostuff', 'model.roi_head.semantic_head=None'):
        assert word in message
    assert 'COCO 2017' not in message  # which is there
    # Evaluation does without.
    check_data_presence(load_config(HTC, data_root=str(tmp_path)), 'test_dataloader')


def test_other_data_are_not_asked_for_maps():
    for name in ('maskrcnn_rmt_s_1x', 'semfpn_rmt_t_80k'):
        with pytest.raises(FileNotFoundError) as caught:
            check_data_presence(narrow_config(name, data_root='nowhere'), 'train_dataloader')
        assert 'stuff' not in str(caught.value)


@pytest.mark.skipif(find_spec('instaboostfast') is not None, reason='it is installed')
def test_missing_package_of_instaboost_is_named():
    with pytest.raises(ImportError, match='pip install instaboostfast'):
        check_data_presence(load_config(str(CONFIGS / 'htc_focal_l_3x.py')), 'train_dataloader')


@pytest.mark.parametrize('path', ['configs/htc_rmt_t_1x.py', 'htc_rmt_t_1x'])
def test_similar_configs_are_named(path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    with pytest.raises(FileNotFoundError, match=r'did you mean.* configs/htc_rmt_s_1x\.py'):
        load_config(path)
