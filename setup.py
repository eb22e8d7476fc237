import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r"'(.+)'", (ROOT / 'mmvitbackbones/version.py').read_text())[1]

# mmdet 3.3 and mmsegmentation 1.2 refuse mmcv 2.2.
MMCV = 'mmcv>=2.0,<2.2'
DET = ['mmdet>=3.3,<4', MMCV, 'scikit-learn']
SEG = ['mmsegmentation>=1.2.2,<2', MMCV, 'ftfy', 'regex', 'scikit-learn']
CLS = ['mmpretrain>=1.2,<2', MMCV, 'scikit-learn']


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
    # mmcv or mmcv-lite is needed too: checked at import, as pip cannot express "either".
    install_requires=['torch>=2.5', 'mmengine>=0.10,<1'],
    extras_require={
        'det': DET,
        'seg': SEG,
        'cls': CLS,
        'export': ['onnx', 'onnxscript', 'onnxruntime', 'scikit-learn'],
        'all': sorted({*DET, *SEG, *CLS}),
        'timm': ['timm>=1.0.31,<2'],
        'dev': ['build', 'coverage', 'hypothesis', 'mypy', 'pytest', 'pytest-xdist', 'ruff'],
    },
)
