import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'tools' / 'setup_env.py'


def run(*command, **env):
    """Run a command that cannot reach a package index; it is found and compiled nowhere."""
    kept = {k: v for k, v in os.environ.items() if k not in ('PIP_FIND_LINKS', 'CC', 'CXX')}
    env = {**kept, 'PIP_NO_INDEX': '1', 'PIP_CONFIG_FILE': os.devnull, **env}
    command = [str(part) for part in command]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


def size_of(folder):
    return sum(file.lstat().st_size for file in folder.rglob('*'))


@pytest.fixture(params=['openmmlab', 'onedl'])
def stack(request):
    return request.param


def test_missing_compiler_is_one_sentence_before_any_large_download(tmp_path, stack):
    (tmp_path / 'bin').mkdir()
    venv = tmp_path / 'venv'
    env = dict(PATH=tmp_path / 'bin', XDG_CACHE_HOME=tmp_path)
    done = run(sys.executable, SCRIPT, '--stack', stack, '--venv', venv, **env)
    assert done.returncode == 1
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith('mmcv must be compiled (no ready wheel was found) but gcc was not')
    assert 'apt install build-essential' in sentence
    assert not (venv / 'setup.stamp').exists()
    assert size_of(venv) < 60e6  # the bare environment: nothing of torch's gigabytes


@pytest.mark.parametrize('python', ['no-such-python', 'false'])
def test_make_names_an_unusable_python(python):
    done = run('make', '-C', ROOT, 'setup', f'PYTHON={python}')
    assert done.returncode != 0
    assert f'Set-up needs Python 3.11 or newer, and "{python}" is not one' in done.stderr


@pytest.mark.parametrize(
    'options, folder',
    [([], '.venv'), (['STACK=openmmlab'], '.venv'), (['STACK=onedl'], '.venv-onedl')],
)
def test_each_stack_has_an_environment_of_its_own(options, folder):
    printed = run('make', '-n', '-C', ROOT, 'test', *options).stdout
    assert f'--venv {folder!r}' in printed
    assert f'\n{folder}/bin/python -m pytest' in printed


def test_make_names_an_unknown_stack():
    done = run('make', '-C', ROOT, 'setup', f'PYTHON={sys.executable}', 'STACK=mmlab')
    assert done.returncode != 0
    assert re.search("--stack: invalid choice: 'mmlab' .*openmmlab.*onedl", done.stderr)


@pytest.fixture
def setup_env(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return importlib.import_module('setup_env')


def test_progress_lines_are_short(setup_env):
    pip = setup_env.pip_progress
    assert pip('  Downloading https://a.b/c/torch-2-cp311.whl (532 MB)\n') == (
        'Downloading torch-2-cp311.whl (532 MB)'
    )
    assert pip('Installing collected packages: a, b, c\n') == 'Installing packages: 3'
    assert pip('Requirement already satisfied: numpy\n') is None
    ninja = setup_env.CompileProgress(every=5)
    line = '  [{}/83] c++ -MMD -MF roi_align.o.d -c roi_align.cpp\n'
    shown = {done: bar for done in range(1, 84) if (bar := ninja(line.format(done)))}
    assert [*shown] == [*range(5, 84, 5), 83]
    assert re.fullmatch(r'\[#{10}\.{20}\] 30 of 83 files, \d+ s left', shown[30])
    assert ninja('running build_ext\n') is None


def test_the_next_clone_finds_what_was_compiled(setup_env, stack, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_CONFIG_FILE', os.devnull)
    stack = setup_env.Stack(stack)
    wheel = tmp_path / f'{stack.mmcv_file}-py3-none-any.whl'
    info = f'{stack.mmcv_file}.dist-info'
    with zipfile.ZipFile(wheel, 'w') as file:
        version = f'Name: {stack.mmcv}\nVersion: {stack.mmcv_version}\n'
        file.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\n{version}')
        file.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
        file.writestr(f'{info}/RECORD', '')

    def found():
        clone = tmp_path / 'clone'
        clone.mkdir(exist_ok=True)
        venv = setup_env.Venv(clone, stack, wheels=None)
        venv.python = Path(sys.executable)
        return venv.ready_mmcv_wheel()

    assert found() is None
    setup_env.keep(wheel)
    assert 'Kept for the next clone' in capsys.readouterr().out
    assert found().read_bytes() == wheel.read_bytes()
    # Compiled for another torch, or with CUDA operations, it is not taken.
    other_torch, cuda = (lambda *names: '0.1'), (lambda: True)
    for name, value in dict(pinned=other_torch, wants_cuda_ops=cuda).items():
        with monkeypatch.context() as patch:
            patch.setattr(setup_env, name, value)
            assert not setup_env.kept_wheels().exists()


def test_an_mmcv_without_operations_does_not_suit(setup_env, stack, tmp_path):
    """Made without torch in sight, OneDL's lacks them and says nothing."""
    version = setup_env.Stack(stack).mmcv_version
    (tmp_path / 'mmcv' / 'ops').mkdir(parents=True)
    (tmp_path / 'mmcv' / '__init__.py').write_text(f'__version__ = {version!r}')
    (tmp_path / 'mmcv' / 'ops' / '__init__.py').write_text('from mmcv._ext import nms')
    (tmp_path / 'bin').mkdir()
    python = tmp_path / 'bin' / 'python'
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    venv = setup_env.Venv(tmp_path, setup_env.Stack(stack), wheels=None)
    assert venv.mmcv_error() == "ModuleNotFoundError: No module named 'mmcv._ext'"


def test_a_wheel_that_cannot_be_kept(setup_env, tmp_path, capsys):
    (tmp_path / 'cache').write_text('a file where a folder should be')
    setup_env.keep(tmp_path / 'mmcv.whl')
    assert 'Not kept for the next clone' in capsys.readouterr().out
