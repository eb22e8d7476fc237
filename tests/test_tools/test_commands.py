"""One home for the tools' code, and doors to it: ``tools/*.py`` and ``mmvit``."""

import subprocess
import sys
from pathlib import Path

import pytest
from running_tools import ROOT, load

from mmvitbackbones import commands
from mmvitbackbones.running import load_config
from mmvitbackbones.zoo import config_folder

MMVIT = ROOT / 'tools' / 'mmvit'


def run(*words, **options):
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, **options
    )


def test_every_command_has_its_module_and_its_door():
    folder = Path(commands.__file__).parent
    assert {path.stem for path in folder.glob('[!_]*.py')} == set(commands.COMMANDS)
    for command in commands.COMMANDS:
        door = (ROOT / 'tools' / f'{command}.py').read_text()
        assert f'from mmvitbackbones.commands.{command} import main\n' in door
        # Before torch is imported, or it is of no use.
        assert door.index("setdefault('OMP_WAIT_POLICY'") < door.index('mmvitbackbones.commands')
        assert callable(load(command).main)


def test_mmvit_from_another_folder(tmp_path):
    """Options go to the command, whose messages name it; a config is known by its name."""
    done = run(MMVIT, 'train', '--help', cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith('usage: mmvit train [-h]')
    done = run(MMVIT, 'complexity', 'cls_rmt_t_in1k', '--shape', 64, 64, cwd=tmp_path)
    assert done.returncode == 0 and 'cls_rmt_t_in1k' in done.stdout, done.stderr


@pytest.mark.parametrize(
    'words, status, said',
    [
        (['--help'], 0, '  train            train a detector'),
        ([], 2, 'arguments are required: COMMAND'),
        (['trian'], 2, "invalid choice: 'trian'"),
    ],
)
def test_what_mmvit_says(words, status, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmvit', *words])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == status and said in ''.join(capsys.readouterr())


@pytest.mark.parametrize(
    'name', ['cls_rmt_t_in1k', 'cls_rmt_t_in1k.py', 'configs/cls_rmt_t_in1k.py']
)
def test_configs_are_found_from_any_folder(name, tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(tmp_path)
    assert load_config(name).filename == str(config_folder() / 'cls_rmt_t_in1k.py')
    with pytest.raises(FileNotFoundError, match='did you mean .*/cls_rmt_t_in1k.py'):
        load_config('cls_rmt_t_in2k')
    with pytest.raises(FileNotFoundError, match='no config'):
        load_config('mine/cls_rmt_t_in1k.py')
