from pathlib import Path

import pytest
import setuptools  # noqa: F401  (brings distutils, which Python 3.12 dropped)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


OPENMMLAB = {'mmcv', 'mmcv-lite', 'mmdet', 'mmengine', 'mmpretrain', 'mmsegmentation'}
TOOLBOX_EXTRAS = {'det', 'seg', 'cls', 'all'}


def pins_of(*files):
    found = {}
    for file in files:
        for line in (ROOT / 'requirements' / file).read_text().splitlines():
            if line and not line.startswith('#'):
                requirement = Requirement(line)
                (specifier,) = requirement.specifier
                assert specifier.operator == '==', line
                name = canonicalize_name(requirement.name)
                assert name not in found, f'{name} is pinned twice'
                found[name] = specifier.version
    return found


def names_of(requirements):
    return {canonicalize_name(Requirement(line).name) for line in requirements}


@pytest.fixture(scope='module')
def distribution(tmp_path_factory):
    from distutils.core import run_setup

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp('elsewhere'))  # setup.py must not read from the cwd
        return run_setup(str(ROOT / 'setup.py'), stop_after='init')


@pytest.mark.parametrize('stack, prefix', [('openmmlab', ''), ('onedl', 'onedl-')])
def test_every_declared_dependency_is_pinned_within_its_range(distribution, stack, prefix):
    pins = pins_of('pinned.txt', f'{stack}.txt')
    declared = [*distribution.install_requires]
    for extra in {'analysis', 'dev', 'export', 'timm', f'{prefix}all'}:
        declared += distribution.extras_require[extra]
    assert len(declared) > 10
    for requirement in map(Requirement, declared):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f'{requirement} but {version} is pinned'


def test_lite_is_what_the_oldest_versions_are_of(distribution):
    pins = pins_of('oldest.txt')
    for requirement in map(Requirement, distribution.extras_require['lite']):
        assert requirement.specifier.contains(pins[requirement.name])


def test_no_stack_is_put_over_the_other(distribution):
    """What is not an extra of a stack asks for none of either's distributions."""
    assert names_of(distribution.install_requires) == {'torch'}
    for extra, requirements in distribution.extras_require.items():
        names = names_of(requirements)
        openmmlab, onedl = names & OPENMMLAB, {n for n in names if n.startswith('onedl-')}
        assert bool(openmmlab) == (extra in TOOLBOX_EXTRAS | {'lite'}), extra
        assert bool(onedl) == (extra.removeprefix('onedl-') in TOOLBOX_EXTRAS and not openmmlab)


def test_python_versions(distribution):
    assert distribution.python_requires == '>=3.10'


@pytest.mark.parametrize('prefix', ['', 'onedl-'])
def test_all_is_the_union_of_the_toolbox_extras(distribution, prefix):
    det, seg, cls, union = (
        {*distribution.extras_require[f'{prefix}{name}']} for name in ('det', 'seg', 'cls', 'all')
    )
    assert union == det | seg | cls and len(union) > len(det)


def test_version_is_read_without_importing_the_package(distribution):
    from mmvitbackbones.version import __version__

    assert distribution.metadata.name == 'mmvitbackbones'
    assert distribution.metadata.version == __version__
