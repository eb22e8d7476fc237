"""Which of OpenMMLab's two stacks is installed: the original one, or OneDL's continuation of it.

Their modules have the same names, their distributions do not. What follows from that is here.
"""

from __future__ import annotations

import warnings
from importlib.metadata import PackageNotFoundError, distribution

# module: its distributions in OpenMMLab's stack and in OneDL's, whose begin with its name
DISTRIBUTIONS = {
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
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
    return any(map(_is_onedl, _installed()))


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
    if _installed():
        return openmmlab
    return f'{openmmlab}, or for the stack of OneDL {onedl}'


def warn_of_mixture() -> None:
    """Warn where a module was installed twice, or a part of one stack beside parts of the other."""
    here = _installed()
    for module, distributions in DISTRIBUTIONS.items():
        several = [name for name in distributions if name in here]
        if len(several) > 1:
            warnings.warn(
                f'{" and ".join(several)} are all the module {module}, whose files are a mixture '
                'now. Uninstall them, then install one.',
                stacklevel=2,
            )
            return
    if len({_is_onedl(name) for name in here}) > 1:
        warnings.warn(
            f'parts of two stacks are installed: {", ".join(here)}. Those that begin with onedl- '
            'do not go with the others: uninstall one kind.',
            stacklevel=2,
        )


def let_configs_find_toolboxes() -> None:
    """Let ``_base_ = 'mmseg::...'`` find mmsegmentation under any distribution's name.

    mmengine looks for a distribution named mmsegmentation, which OneDL's is not. The module's own
    name leads mmengine to where it lies, whichever distribution brought it.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE['mmseg'] = 'mmseg'


def _installed() -> list[str]:
    """The distributions of both stacks that are here."""
    return [name for names in DISTRIBUTIONS.values() for name in names if _is_installed(name)]


def _is_onedl(name: str) -> bool:
    return name.startswith('onedl-')


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
