import sys

import pytest

from mmvitbackbones.requirements_check import (
    check_requirements,
    check_versions,
    installed_versions,
)
from mmvitbackbones.stack import how_to_install

GOOD = {'torch': '2.12.1', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


@pytest.mark.parametrize(
    'versions',
    [
        GOOD,
        {'torch': '2.5.0a0+07cecf4', 'mmengine': '0.10.0', 'mmcv': '2.0.0rc4'},
        {'torch': '2.12.1+cu130', 'mmengine': '0.11.0', 'mmcv': '2.2.0'},
    ],
)
def test_supported_versions_pass(versions):
    check_versions(versions)


def test_what_is_installed_here_passes():
    check_requirements()


def test_an_absent_module_has_no_version(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv', None)
    versions = installed_versions()
    assert versions.pop('mmcv') is None and None not in versions.values()


def test_a_broken_module_says_itself_what_is_wrong(tmp_path, monkeypatch):
    (tmp_path / 'mmcv.py').write_text('import absent')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'mmcv')
    with pytest.raises(ModuleNotFoundError, match="No module named 'absent'"):
        installed_versions()


def test_unmet_need_is_one_sentence():
    with pytest.raises(ImportError) as caught:
        check_versions({**GOOD, 'torch': '2.4.1+cu118'})
    assert str(caught.value) == (
        "mmvitbackbones needs torch >= 2.5, but found 2.4.1+cu118: run pip install 'torch>=2.5'."
    )


@pytest.mark.parametrize(
    ('module', 'version', 'need'),
    [
        ('mmengine', None, 'mmengine >= 0.10, < 1.0, which is not installed'),
        ('mmengine', '0.9.1', 'mmengine >= 0.10, < 1.0, but found 0.9.1'),
        ('mmcv', None, 'mmcv or mmcv-lite >= 2.0, < 3.0, which is not installed'),
        ('mmcv', '1.7.2', 'mmcv or mmcv-lite >= 2.0, < 3.0, but found 1.7.2'),
        ('mmcv', '3.0.0', 'mmcv or mmcv-lite >= 2.0, < 3.0, but found 3.0.0'),
    ],
)
def test_what_both_stacks_have_is_named_with_its_remedy(module, version, need):
    with pytest.raises(ImportError) as caught:
        check_versions({**GOOD, module: version})
    message = str(caught.value)
    assert message == f'mmvitbackbones needs {need}: run {how_to_install(module)}.'
    assert '\n' not in message
