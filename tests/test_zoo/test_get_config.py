import re

import pytest
from mmengine.config import Config

from mmvitbackbones import get_config, zoo
from mmvitbackbones.zoo import configs

NAME = 'maskrcnn_regionvit_s_1x'


def test_reads_the_repositorys_config_from_another_folder(tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    cfg = get_config(NAME)
    expected = Config.fromfile(zoo.config_folder() / f'{NAME}.py')
    assert cfg.to_dict() == expected.to_dict()
    assert cfg.model.type == 'MaskRCNN'  # from mmdet's _base_
    assert cfg.model.backbone.type == 'RegionViT'  # from ours


def test_unknown_names_list_similar_ones():
    with pytest.raises(ValueError) as caught:
        get_config('mask_rcnn_regionvit_s_1x')
    assert re.match(
        f"there is no config 'mask_rcnn_regionvit_s_1x': did you mean {NAME}", str(caught.value)
    )
    with pytest.raises(ValueError, match='docs/model_zoo.md lists them'):
        get_config('?')
    with pytest.raises(ValueError, match='there is no config'):
        get_config('_base_/default_runtime')


def test_a_package_without_configs_says_how_to_install_it(tmp_path, monkeypatch):
    inside = tmp_path / 'mmvitbackbones' / 'zoo' / 'configs.py'
    monkeypatch.setattr(configs, '__file__', str(inside))
    with pytest.raises(FileNotFoundError, match='no configs beside it: install mmvitbackbones'):
        get_config(NAME)
