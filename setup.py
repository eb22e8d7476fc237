import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r"'(.+)'", (ROOT / 'mmvitbackbones/version.py').read_text())[1]

# Two stacks have modules of the same names, so pip would put one over the other. Each therefore has
# extras of its own, and nothing else asks for any of their distributions.
# mmdet 3.3 and mmsegmentation 1.2 refuse mmcv 2.2.
OPENMMLAB = ['mmengine>=0.10,<1', 'mmcv>=2.0,<2.2', 'scikit-learn']
ONEDL = ['onedl-mmengine>=0.10.12,<1', 'onedl-mmcv>=2.3.6,<3', 'scikit-learn']
TOOLBOXES = {
    'det': [*OPENMMLAB, 'mmdet>=3.3,<4'],
    'seg': [*OPENMMLAB, 'mmsegmentation>=1.2.2,<2', 'ftfy', 'regex'],
    'cls': [*OPENMMLAB, 'mmpretrain>=1.2,<2'],
    'onedl-det': [*ONEDL, 'onedl-mmdetection>=3.5.1,<4', 'imgaug'],
    'onedl-seg': [*ONEDL, 'onedl-mmsegmentation>=1.4.2,<2'],
    'onedl-cls': [*ONEDL, 'onedl-mmpretrain>=1.3.6,<2'],
}


def union(prefix: str) -> list[str]:
    """What the extras of a stack's three toolboxes ask for."""
    return sorted({line for task in ('det', 'seg', 'cls') for line in TOOLBOXES[prefix + task]})


class BuildWithConfigs(build_py):
    """Puts configs, metafiles and tools where OpenMMLab's packages carry theirs."""

    def run(self) -> None:
        """Copy them; an editable install reads the repository's own."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, 'mmvitbackbones', '.mim')
        shutil.rmtree(folder, ignore_errors=True)  # what an earlier build left
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / 'configs', folder / 'configs', ignore=ignore)
        (folder / 'tools').mkdir()
        for command in (ROOT / 'mmvitbackbones' / 'commands').glob('[!_]*.py'):
            shutil.copy(ROOT / 'tools' / command.name, folder / 'tools')
        for script in (ROOT / 'tools').glob('*_*.sh'):  # mim knows them by these names
            shutil.copy(script, folder / 'tools')
        shutil.copy(ROOT / 'model-index.yml', folder)


setup(
    name='mmvitbackbones',
    version=VERSION,
    description='Vision-transformer backbones for the OpenMMLab toolboxes',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    cmdclass={'build_py': BuildWithConfigs},
    packages=find_packages(include=['mmvitbackbones', 'mmvitbackbones.*']),
    package_data={'mmvitbackbones.seeing': ['page.html']},
    scripts=['tools/mmvit'],
    python_requires='>=3.10',
    # Of mmengine and mmcv, too, there are several distributions: checked at import, as pip cannot
    # express "one of these".
    install_requires=['torch>=2.5'],
    extras_require={
        'lite': ['mmengine>=0.10,<1', 'mmcv-lite>=2.0,<2.2'],
        **TOOLBOXES,
        'all': union(''),
        'onedl-all': union('onedl-'),
        'analysis': ['grad-cam<1.5', 'psutil', 'seaborn'],
        'export': ['onnx', 'onnxscript', 'onnxruntime', 'scikit-learn'],
        'timm': ['timm>=1.0.31,<2'],
        'dev': ['build', 'coverage', 'hypothesis', 'mypy', 'pytest', 'pytest-xdist', 'ruff'],
    },
)
