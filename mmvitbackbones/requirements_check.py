"""The check of installed versions when the package is imported.

pip cannot express "mmengine or onedl-mmengine", nor "mmcv or mmcv-lite or onedl-mmcv", so none is
a declared dependency and this says what is missing.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping

from .stack import how_to_install, is_onedl, warn_of_mixture

# module: (first major.minor that works, first that does not)
_SUPPORTED = {'torch': ((2, 5), None), 'mmengine': ((0, 10), (1, 0)), 'mmcv': ((2, 0), (3, 0))}


def check_versions(versions: Mapping[str, str | None]) -> None:
    """Check version strings against what this package supports.

    Args:
        versions: version by module name ('torch', 'mmengine', 'mmcv'), None where the module is
            not installed. mmcv, mmcv-lite and onedl-mmcv all count as 'mmcv'.

    Raises:
        ImportError: one sentence naming the first unmet need and the pip command that meets it.
    """
    for name, (oldest, limit) in _SUPPORTED.items():
        version = versions[name]
        # Only major.minor: vendors ship pre-release names such as 2.4.0a0+07cecf4.
        found = tuple(int(part) for part in re.findall(r'\d+', version or '')[:2])
        if version is not None and found >= oldest and not (limit and found >= limit):
            continue
        either = name == 'mmcv' and not is_onedl()
        need = f'{"mmcv or mmcv-lite" if either else name} >= {oldest[0]}.{oldest[1]}'
        if limit:
            need += f', < {limit[0]}.{limit[1]}'
        remedy = "pip install 'torch>=2.5'" if name == 'torch' else how_to_install(name)
        fault = 'which is not installed' if version is None else f'but found {version}'
        raise ImportError(f'mmvitbackbones needs {need}, {fault}: run {remedy}.')


def installed_versions() -> dict[str, str | None]:
    """Import torch, mmengine and mmcv and return their versions, None for an absent one."""
    versions: dict[str, str | None] = {}
    for name in _SUPPORTED:
        try:
            versions[name] = importlib.import_module(name).__version__
        except ModuleNotFoundError as error:
            if error.name != name:  # installed, but broken inside: its own message says more
                raise
            versions[name] = None
    return versions


def check_requirements() -> None:
    """Check the installed torch, mmengine and mmcv; see `check_versions` for the error.

    Warns where the two stacks of OpenMMLab's toolboxes are mixed.
    """
    warn_of_mixture()
    check_versions(installed_versions())
