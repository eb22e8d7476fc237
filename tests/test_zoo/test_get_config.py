import re
import sys

import pytest
from mmengine.config import Config
from mmengine.config import config as mmengine_config
from mmengine.utils import is_installed

from mmvitbackbones import get_config, zoo
from mmvitbackbones.stack import how_to_install
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


@pytest.mark.parametrize(
    'name, package',
    [(NAME, 'mmdet'), ('semfpn_rmt_t_80k', 'mmseg'), ('cls_rmt_t_in1k', 'mmpretrain')],
)
def test_a_toolbox_that_is_not_installed(monkeypatch, name, package):
    monkeypatch.setattr(mmengine_config, 'is_installed', lambda package: False)
    with pytest.raises(ImportError) as caught:
        get_config(name)
    need = f'the config {name!r} needs {package}, which is not installed'
    assert str(caught.value) == f'{need}: run {how_to_install(package)}'


def test_setuptools_too_new_for_mmengine(monkeypatch):
    monkeypatch.setattr(mmengine_config, 'is_installed', is_installed)
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    with pytest.raises(ImportError, match="pip install 'setuptools<81'"):
        get_config(NAME)


def test_what_else_a_config_misses_is_said_as_it_is(tmp_path, monkeypatch):
    (tmp_path / 'configs' / '_base_').mkdir(parents=True)
    (tmp_path / 'configs' / 'mine.py').write_text('_base_ = []\nimport absent')
    monkeypatch.setattr(configs, '__file__', str(tmp_path / 'package' / 'zoo' / 'configs.py'))
    with pytest.raises(ModuleNotFoundError, match='absent'):
        get_config('mine')
