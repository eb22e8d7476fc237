from pathlib import Path

import pytest
import setuptools  # noqa: F401  (brings distutils, which Python 3.12 dropped)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def pins():
    lines = (ROOT / 'requirements' / 'pinned.txt').read_text().splitlines()
    found = {}
    for line in lines:
        if line and not line.startswith('#'):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == '==', line
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


@pytest.fixture(scope='module')
def distribution(tmp_path_factory):
    from distutils.core import run_setup

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp('elsewhere'))  # setup.py must not read from the cwd
        return run_setup(str(ROOT / 'setup.py'), stop_after='init')


def test_every_declared_dependency_is_pinned_within_its_range(pins, distribution):
    declared = [*distribution.install_requires]
    for extra in distribution.extras_require.values():
        declared += extra
    assert len(declared) > 10
    for requirement in map(Requirement, declared):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f'{requirement} but {version} is pinned'


def test_light_install_asks_for_torch_and_mmengine_only(distribution):
    names = {Requirement(line).name for line in distribution.install_requires}
    assert names == {'torch', 'mmengine'}
    assert distribution.python_requires == '>=3.10'


def test_all_is_the_union_of_the_toolbox_extras(distribution):
    extras = distribution.extras_require
    assert set(extras['all']) == {*extras['det'], *extras['seg'], *extras['cls']}


def test_version_is_read_without_importing_the_package(distribution):
    from mmvitbackbones.version import __version__

    assert distribution.metadata.name == 'mmvitbackbones'
    assert distribution.metadata.version == __version__
