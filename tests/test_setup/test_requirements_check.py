import sys

import pytest

from mmvitbackbones.requirements_check import (
    check_requirements,
    check_versions,
    installed_versions,
)

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


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'torch': '2.4.1+cu118'},
            'mmvitbackbones needs torch >= 2.5, but found 2.4.1+cu118: '
            "run pip install 'torch>=2.5'.",
        ),
        (
            {'mmengine': None},
            'mmvitbackbones needs mmengine >= 0.10, < 1.0, which is not installed: '
            "run pip install 'mmengine>=0.10,<1'.",
        ),
        (
            {'mmengine': '0.9.1'},
            'mmvitbackbones needs mmengine >= 0.10, < 1.0, but found 0.9.1: '
            "run pip install 'mmengine>=0.10,<1'.",
        ),
    ],
)
def test_unmet_need_is_one_sentence(change, message):
    with pytest.raises(ImportError) as caught:
        check_versions({**GOOD, **change})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ('version', 'words'),
    [(None, 'which is not installed'), ('1.7.2', 'but found 1.7.2'), ('3.0.0', 'but found 3.0.0')],
)
def test_mmcv_or_mmcv_lite_is_named(version, words):
    with pytest.raises(ImportError) as caught:
        check_versions({**GOOD, 'mmcv': version})
    message = str(caught.value)
    assert message.startswith(f'mmvitbackbones needs mmcv or mmcv-lite >= 2.0, < 3.0, {words}')
    assert "pip install 'mmcv-lite>=2.0,<2.2'" in message
    assert "pip install 'mmcv>=2.0,<2.2'" in message
    assert '\n' not in message
