"""The configs of this package by their names, from any folder."""

from __future__ import annotations

import difflib
from pathlib import Path

from mmengine.config import Config

from ..stack import TOOLBOXES, how_to_install


def config_folder() -> Path:
    """Return the folder of the configs: the repository's, or the one that a wheel installed.

    Raises:
        FileNotFoundError: If the package was installed in some other way, without configs.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if (folder / '_base_').is_dir():
            return folder
    raise FileNotFoundError(
        f'{package} has no configs beside it: install mmvitbackbones from its wheel, or its '
        'repository with pip install -e'
    )


def get_config(name: str) -> Config:
    """Read a config of this package by its name, from any folder.

    Args:
        name (str): Such as 'maskrcnn_regionvit_s_1x'; docs/model_zoo.md lists them.

    Returns:
        Config: The config, its ``_base_`` resolved.

    Raises:
        ValueError: If there is no such config; names similar ones.
        ImportError: If the config's toolbox is not installed; says how to install it.
    """
    folder = config_folder()
    names = config_names(folder)
    name = name.removesuffix('.py')
    if name not in names:
        similar = difflib.get_close_matches(name, names, n=5)
        hint = f'did you mean {", ".join(similar)}?' if similar else 'docs/model_zoo.md lists them'
        raise ValueError(f'there is no config {name!r}: {hint}')
    try:
        return Config.fromfile(folder / f'{name}.py')
    except ModuleNotFoundError as error:
        remedies = {module: how_to_install(module) for module in TOOLBOXES}
        remedies['pkg_resources'] = "pip install 'setuptools<81'"  # mmengine's own need
        for package, remedy in remedies.items():
            if package in str(error):
                raise ImportError(
                    f'the config {name!r} needs {package}, which is not installed: run {remedy}'
                ) from error
        raise


def config_names(folder: Path) -> list[str]:
    """Names of the configs in a folder."""
    return sorted(path.stem for path in folder.glob('*.py'))
