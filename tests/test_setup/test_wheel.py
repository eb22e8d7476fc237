"""The wheel, installed into an environment without the checkout, used from another folder."""

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import own_data_folders
import pytest

from mmvitbackbones import __version__, get_config
from mmvitbackbones.commands import COMMANDS
from mmvitbackbones.stack import how_to_install, is_onedl

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *('LICENSE', 'MANIFEST.in', 'README.md', 'model-index.yml', 'pyproject.toml', 'setup.py'),
    *('configs', 'docs', 'mmvitbackbones', 'requirements', 'tests', 'tools'),
]
CONFIGS = {'mmdet': 'maskrcnn_regionvit_s_1x', 'mmseg': 'semfpn_rmt_t_80k'}


def run(*command, **options):
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_in(folder):
    """Contents by paths below the folder, without what running Python leaves."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def repository(tmp_path_factory):
    """A copy, for building leaves files behind."""
    folder = tmp_path_factory.mktemp('repository')
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / 'data').mkdir()
    (folder / 'data' / 'image.png').touch()
    return folder


@pytest.fixture(scope='module')
def dist(repository):
    """The folder of an sdist and of the wheel that is built from it."""
    run(sys.executable, '-m', 'build', '--no-isolation', repository, cwd=repository)
    return repository / 'dist'


@pytest.fixture(scope='module')
def environment(dist, tmp_path_factory):
    """A function that runs code beside the installed wheel and returns what it prints."""
    folder = tmp_path_factory.mktemp('environment')
    run(sys.executable, '-m', 'venv', '--without-pip', folder)
    python = folder / 'bin' / 'python'
    install = ['-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index']
    run(sys.executable, *install, next(dist.glob('*.whl')))
    (packages,) = folder.glob('lib/python*/site-packages')

    def run_code(code, dependencies):
        """Only names in the environment's own folder are read, so no editable install is seen."""
        (packages / 'dependencies.pth').write_text('\n'.join(map(str, dependencies)))
        env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
        return run(python, '-c', textwrap.dedent(code), cwd=folder, env=env)

    run_code.packages = packages
    return run_code


@pytest.fixture(scope='module')
def mim(environment):
    return environment.packages / 'mmvitbackbones' / '.mim'


def test_wheel_holds_configs_metafiles_and_tools(repository, mim):
    """Those tools that are doors to a command; mim finds them by their names."""
    expected = {f'configs/{name}': text for name, text in files_in(repository / 'configs').items()}
    assert {'configs/model_zoo.yml', 'configs/_base_/default_runtime.py'} <= set(expected)
    expected['model-index.yml'] = (repository / 'model-index.yml').read_bytes()
    tools = {f'{command}.py' for command in COMMANDS}
    tools |= {'dist_train.sh', 'dist_test.sh', 'slurm_train.sh'}
    expected |= {f'tools/{tool}': (repository / 'tools' / tool).read_bytes() for tool in tools}
    assert files_in(mim) == expected


def test_wheel_and_sdist_hold_nothing_of_the_repositorys_other_folders(dist):
    with zipfile.ZipFile(next(dist.glob('*.whl'))) as wheel:
        tops = {name.split('/')[0] for name in wheel.namelist()}
        assert not any('__pycache__' in name for name in wheel.namelist())
    name = f'mmvitbackbones-{__version__}'
    assert tops == {'mmvitbackbones', f'{name}.data', f'{name}.dist-info'}  # data: bin/mmvit
    with tarfile.open(next(dist.glob('*.tar.gz'))) as sdist:
        tops = {name.split('/')[1] for name in sdist.getnames() if '/' in name}
    assert tops.isdisjoint({'tests', 'data', 'docs'})


@pytest.fixture(scope='module')
def found(environment):
    """Configs, models that are built from them, and OpenMMLab's list of them in the environment."""
    for toolbox in ('mmdet', 'mmseg'):
        pytest.importorskip(toolbox)
    printed = environment(
        f"""
        import json

        import torch
        from mmengine.config.utils import MODULE2PACKAGE
        from mmengine.infer import BaseInferencer
        from mmengine.registry import MODELS, init_default_scope

        import mmvitbackbones

        modules, files, configs = [], [], []
        for name in {[*CONFIGS.values()]}:
            cfg = mmvitbackbones.get_config(name)
            init_default_scope(cfg.default_scope)
            files.append(cfg.filename)
            configs.append(repr(cfg.to_dict()))  # before building, which adds to it
            with torch.device('meta'):
                modules.append(MODELS.build(cfg.model).backbone.__module__)
        MODULE2PACKAGE['mmvitbackbones'] = 'mmvitbackbones'
        folder = BaseInferencer._get_repo_or_mim_dir('mmvitbackbones')
        listed = BaseInferencer.list_models('mmvitbackbones')
        found = dict(modules=modules, files=files, configs=configs, folder=folder, listed=listed)
        print('found', json.dumps(found))
        """,
        site.getsitepackages(),
    )
    (line,) = (line for line in printed.splitlines() if line.startswith('found '))
    return json.loads(line.partition(' ')[2])


def test_installed_configs_are_the_checkouts_and_build(found, mim):
    names = [*CONFIGS.values()]
    modules = ['mmvitbackbones.backbones.regionvit', 'mmvitbackbones.backbones.rmt']
    assert found['modules'] == modules
    assert found['files'] == [str(mim / 'configs' / f'{name}.py') for name in names]
    assert found['configs'] == [repr(get_config(name).to_dict()) for name in names]


def test_openmmlabs_reader_lists_every_config(found, mim):
    configs = {path.stem for path in (mim / 'configs').glob('*.py')}
    demos = {name for name in configs if name.startswith('demo_')}
    assert found['folder'] == str(mim)
    assert configs - {*found['listed']} == demos


def test_the_page_is_there(environment):
    assert (environment.packages / 'mmvitbackbones/seeing/page.html').is_file()


def test_a_missing_toolbox_says_what_to_install(environment, tmp_path):
    for folder in map(Path, site.getsitepackages()):
        for path in folder.iterdir():
            if not path.name.startswith(('mmdet', 'mmseg', 'mmvit', '__editable__')):
                (tmp_path / path.name).symlink_to(path)
    printed = environment(
        f"""
        import mmvitbackbones

        for name in {[*CONFIGS.values()]}:
            try:
                mmvitbackbones.get_config(name)
            except ImportError as error:
                print(error)
        """,
        [tmp_path],
    )
    assert printed.splitlines() == [
        f'the config {name!r} needs {toolbox}, which is not installed: run '
        + how_to_install(toolbox)
        for toolbox, name in CONFIGS.items()
    ]


def test_pip_puts_no_stack_over_the_one_that_is_here(dist):
    """Without an index pip ends with an error where it would fetch anything."""
    stack = 'onedl-all' if is_onedl() else 'all'
    (wheel,) = dist.glob('*.whl')
    for extras in ('analysis,export,timm', f'{stack},dev'):
        run(
            *(sys.executable, '-m', 'pip', 'install', '--dry-run', '--no-index'),
            f'{wheel}[{extras}]',
        )


def test_mmvit_trains_on_own_data_in_another_folder(environment, tmp_path):
    """With one of the wheel's own configs, by its name."""
    pytest.importorskip('mmdet')
    data = tmp_path / 'data'
    data.mkdir()
    own_data_folders.make_coco(data)
    mmvit = environment.packages.parents[2] / 'bin' / 'mmvit'
    command = ['mmvit', 'train', 'retinanet_rmt_t_1x', '--data', str(data), '--epochs', '1']
    command += ['--image-size', '64', '96', '--batch-size', '6', '--workers', '0']
    command += ['--work-dir', str(tmp_path / 'work')]
    printed = environment(
        f"""
        import runpy
        import sys

        sys.argv, sys.stderr = {command}, sys.stdout
        runpy.run_path({str(mmvit)!r}, run_name='__main__')
        """,
        site.getsitepackages(),
    )
    assert 'COCO (annotations/instances_train' in printed
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()
