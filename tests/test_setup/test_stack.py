"""What depends on whose toolboxes are installed, in environments of either stack, both or none."""

import subprocess
import sys
import warnings

import pytest
from packaging.requirements import Requirement

from mmvitbackbones import stack

ENGINES = dict(openmmlab=['mmengine'], onedl=['onedl-mmengine'], none=[])


@pytest.fixture
def installed(monkeypatch):
    """A function that makes distributions the only ones of the two stacks that are installed."""

    def install(names):
        monkeypatch.setattr(stack, '_is_installed', lambda name: name in names)

    return install


@pytest.mark.parametrize('module', ['mmengine', 'mmcv', *stack.TOOLBOXES])
@pytest.mark.parametrize('here', ENGINES)
def test_the_remedy_is_of_the_stack_that_is_here(installed, here, module):
    installed(ENGINES[here])
    remedy = stack.how_to_install(module)
    assert ('onedl-' in remedy) == (here in ('onedl', 'none'))
    others = ('install mmengine', "'mmengine", "'mmcv", '[det]', '[seg]', '[cls]')
    assert any(other in remedy for other in others) == (here in ('openmmlab', 'none'))


@pytest.mark.parametrize('here', ENGINES)
def test_remedies_are_commands_of_pip(installed, here):
    """Their requirements can be read, and name what brings the module."""
    installed(ENGINES[here])
    for module in ('mmengine', 'mmcv'):
        requirements = stack.how_to_install(module).split("'")[1::2]
        assert {Requirement(line).name.removeprefix('onedl-') for line in requirements} <= {
            module,
            f'{module}-lite',
        }


@pytest.mark.parametrize(
    'here, words',
    [
        (['mmengine', 'mmcv', 'onedl-mmcv'], 'mmcv and onedl-mmcv are all the module mmcv'),
        (['mmengine', 'mmcv', 'mmcv-lite'], 'mmcv and mmcv-lite are all the module mmcv'),
        (['onedl-mmengine', 'onedl-mmcv', 'mmcv-lite'], 'mmcv-lite and onedl-mmcv are all'),
        (['mmengine', 'onedl-mmcv'], 'two stacks are installed: mmengine, onedl-mmcv'),
        (['onedl-mmengine', 'onedl-mmcv', 'mmdet'], 'two stacks are installed'),
    ],
)
def test_a_mixture_is_warned_of(installed, here, words):
    installed(here)
    with pytest.warns(UserWarning, match=words) as seen:
        stack.warn_of_mixture()
    assert len(seen) == 1


def test_a_part_of_a_stack_says_which_it_is(installed):
    installed(['onedl-mmcv'])
    assert stack.how_to_install('mmengine').startswith("pip install 'onedl-mmengine")


@pytest.mark.parametrize('here', ENGINES)
def test_one_stack_is_no_mixture(installed, here):
    installed(ENGINES[here])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        stack.warn_of_mixture()


def test_what_is_installed_here_is_no_mixture():
    code = 'import warnings; warnings.simplefilter("error", UserWarning); import mmvitbackbones'
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)
