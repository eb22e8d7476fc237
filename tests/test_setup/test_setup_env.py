import os
import subprocess
import sys
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


def test_missing_compiler_is_one_sentence_before_any_large_download(tmp_path):
    (tmp_path / 'bin').mkdir()
    venv = tmp_path / 'venv'
    done = run(sys.executable, SCRIPT, '--venv', venv, PATH=tmp_path / 'bin')
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


def test_progress_lines_are_short():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import setup_env
    finally:
        sys.path.remove(str(SCRIPT.parent))
    pip = setup_env.pip_progress
    assert pip('  Downloading https://a.b/c/torch-2-cp311.whl (532 MB)\n') == (
        'Downloading torch-2-cp311.whl (532 MB)'
    )
    assert pip('Installing collected packages: a, b, c\n') == 'Installing packages: 3'
    assert pip('Requirement already satisfied: numpy\n') is None
    ninja = setup_env.compile_progress
    assert (
        ninja('  [5/83] c++ -MMD -MF roi_align.o.d -c roi_align.cpp\n') == 'Compiled 5 of 83 files'
    )
    assert ninja('  [83/83] c++ x\n') == 'Compiled 83 of 83 files'
    assert ninja('  [6/83] c++ x\n') is None
