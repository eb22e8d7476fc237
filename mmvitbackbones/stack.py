"""Which of OpenMMLab's two stacks is installed: the original one, or OneDL's continuation of it.

Their modules have the same names, their distributions do not. What follows from that is here.
"""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, distribution

# module: its distribution in OpenMMLab's stack, and in OneDL's
DISTRIBUTIONS = {
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
}
_WITH_EXTRA = (
    "pip install --no-build-isolation 'mmvitbackbones[{}]' (full mmcv first: docs/install.md)"
)
# module: the command that installs it in OpenMMLab's stack, and in OneDL's
_COMMANDS = {
    'mmengine': ("pip install 'mmengine>=0.10,<1'", "pip install 'onedl-mmengine>=0.10.12,<1'"),
    'mmcv': (
        "pip install 'mmcv-lite>=2.0,<2.2' (enough for the backbones) or "
        "pip install 'mmcv>=2.0,<2.2' (compiled operations, for mmdet, mmseg and mmpretrain)",
        "pip install --no-build-isolation 'onedl-mmcv>=2.3.6,<3' (with torch already there, "
        'without which its operations are silently left out)',
    ),
    'mmdet': (_WITH_EXTRA.format('det'), _WITH_EXTRA.format('onedl-det')),
    'mmseg': (_WITH_EXTRA.format('seg'), _WITH_EXTRA.format('onedl-seg')),
    'mmpretrain': (_WITH_EXTRA.format('cls'), _WITH_EXTRA.format('onedl-cls')),
}
TOOLBOXES = ('mmdet', 'mmseg', 'mmpretrain')


def is_onedl() -> bool:
    """Whether the stack that is here is OneDL's."""
    return _is_installed('onedl-mmengine')


def how_to_install(module: str) -> str:
    """Say how to install a module of the stack that is here, which the other's would overwrite.

    Args:
        module (str): 'mmengine', 'mmcv', 'mmdet', 'mmseg' or 'mmpretrain'.

    Returns:
        str: The command; where neither stack is here, that of each.
    """
    openmmlab, onedl = _COMMANDS[module]
    if is_onedl():
        return onedl
    if _is_installed('mmengine'):
        return openmmlab
    return f'{openmmlab}, or for the stack of OneDL {onedl}'


def warn_of_mixture() -> None:
    """Warn where a module was installed twice, by the distributions of both stacks."""
    for module, distributions in DISTRIBUTIONS.items():
        if all(map(_is_installed, distributions)):
            both = ' and '.join(distributions)
            warnings.warn(
                f'{both} are both installed, and both are the module {module}: its files are a '
                f'mixture. Uninstall both, then install one.',
                stacklevel=2,
            )


def let_configs_find_toolboxes() -> None:
    """Let ``_base_ = 'mmseg::...'`` find mmsegmentation under any distribution's name.

    mmengine looks for a distribution named mmsegmentation, which OneDL's is not. The module's own
    name leads mmengine to where it lies, whichever distribution brought it.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['mmseg'] = 'mmseg'


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
