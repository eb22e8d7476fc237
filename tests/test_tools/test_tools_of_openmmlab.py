"""What the toolboxes' own tools make of our configs: the tables of docs/toolbox_tools.md."""

import functools
import os
import re
import runpy
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import own_data_folders as folders
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

from narrow_configs import narrow_own_config
from running_tools import ROOT, own_instances, succeed

from mmvitbackbones.running import load_config, make_demo_data
from mmvitbackbones.stack import is_onedl

# A config, a data set and an image size for it, and what a test measures.
TRAININGS = {
    'mmdet': (
        'maskrcnn_rmt_t_1x',
        partial(folders.make_yolo, polygons=True),
        ['64', '96'],
        'segm_mAP',
    ),
    'mmseg': ('upernet_rmt_s_160k', folders.make_maps, ['64'], 'mIoU'),
    'mmpretrain': ('cls_rmt_t_in1k', folders.make_class_folders, ['64'], 'accuracy/top1'),
}


def rows():
    """The toolboxes and commands of the tables; what a stack cannot run is left out."""
    toolbox, column = None, 2 if is_onedl() else 1
    for line in (ROOT / 'docs' / 'toolbox_tools.md').read_text().splitlines():
        if line.startswith('## '):
            (toolbox,) = (name for name in TRAININGS if name in line)
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if line.startswith('| `') and cells[column].startswith('yes'):
            yield toolbox, ' '.join(re.findall('`(.+?)`', cells[0] + cells[column]))


ROWS = [*rows()]


def tool_of(toolbox, file):
    return str(Path(find_spec(toolbox).origin).parent / '.mim' / 'tools' / file)


def run_here(file, *arguments):
    """Run a toolbox's own tool in this process, at the root."""
    with own_instances(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [file, *map(str, arguments)])
        patch.setenv('MPLBACKEND', 'agg')
        patch.chdir(ROOT)
        runpy.run_path(file, run_name='__main__')


def run_alone(file, *arguments):
    """Run it as a user does: nothing has imported this package before it reads the config."""
    command = [sys.executable, file, *map(str, arguments)]
    env = {**os.environ, 'MPLBACKEND': 'agg'}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)


class Training:
    """A narrow model on a small data set, trained by a toolbox's own tool."""

    def __init__(self, toolbox, folder):
        self.toolbox, self.folder = toolbox, folder
        name, make, size, self.metric = TRAININGS[toolbox]
        make(folder)
        narrow_own_config(name).dump(folder / f'{name}.py')
        succeed(
            *('train', folder / f'{name}.py', '--data', folder, '--image-size', *size),
            *('--epochs', 1, '--batch-size', 2, '--workers', 0),
            *('--work-dir', folder / 'work', '--save-config', folder / 'saved.py'),
            options=['default_hooks.logger.interval=1'],
        )
        self.run('train.py CONFIG')
        self.words = dict(
            CHECKPOINT=next(folder.glob('work/*.pth')),
            LOG=next(folder.glob('work/*/vis_data/2*.json')),
            IMAGE=next(folder.rglob('*.jpg')),
        )

    def run(self, command, out='out', how=run_here):
        """Run a row of a table."""
        words = dict(CONFIG=self.folder / 'saved.py', OUT=self.folder / out)
        words |= getattr(self, 'words', {})
        file, *arguments = command.split()
        for number, argument in enumerate(arguments):
            arguments[number] = re.sub('|'.join(words), lambda name: str(words[name[0]]), argument)
        (self.folder / out).mkdir(exist_ok=True)
        how(tool_of(self.toolbox, file), *arguments)

    def logged(self):
        """What the last run wrote of its metrics and losses."""
        newest = max(self.folder.glob('work/2*'))
        return ''.join(path.read_text() for path in newest.rglob('*.json'))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A function that trains for a toolbox, once for each."""
    return functools.cache(lambda toolbox: Training(toolbox, tmp_path_factory.mktemp(toolbox)))


@pytest.mark.parametrize(
    'toolbox, command', ROWS, ids=[f'{toolbox} {row.split()[0]}' for toolbox, row in ROWS]
)
@pytest.mark.parametrize('how', [run_here, pytest.param(run_alone, marks=pytest.mark.sweep)])
def test_a_row(toolbox, command, how, trained, capsys):
    training, tool = trained(toolbox), Path(command.split()[0]).stem
    if tool == 'train':
        if how is run_alone:  # else the fixture has run it
            training.run(command, how=how)
        assert training.metric in training.logged()
        return
    if tool == 'confusion_matrix':
        (test,) = (row for name, row in ROWS if name == toolbox and row.startswith('test.py'))
        training.run(test, out=tool)
    training.run(command, tool, how)
    made = [path for path in (training.folder / tool).rglob('*') if path.is_file()]
    if tool == 'test':
        assert made and training.metric in training.logged()
    elif tool == 'get_flops':
        assert counted(capsys.readouterr().out) > 0
    else:
        pictures = [cv2.imread(str(path)) for path in made if path.suffix in ('.jpg', '.png')]
        assert pictures and all(picture.std() > 5 for picture in pictures)


def counted(printed):
    """Flops as printed, in thousand millions."""
    number, unit = re.search(r'Flops: ([\d.]+)\s?([MGT])', printed).groups()
    return float(number) * dict(M=1e-3, G=1, T=1e3)[unit]


def test_get_flops_of_mmpretrain(capsys):
    """About the 2.4 thousand millions of the paper."""
    tool = tool_of('mmpretrain', 'analysis_tools/get_flops.py')
    run_here(tool, 'configs/cls_regionvit_ti_in1k.py')
    assert 2.0 < counted(capsys.readouterr().out) < 2.8


def test_get_flops_of_mmdet(monkeypatch, capsys, tmp_path):
    """On an image of the demo, as it loads one of the data set."""
    monkeypatch.chdir(ROOT)
    config = tmp_path / 'retinanet_regionvit_s_1x.py'
    cfg = load_config(f'configs/{config.name}', demo=True)
    make_demo_data(cfg)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.dump(config)
    run_here(tool_of('mmdet', 'analysis_tools/get_flops.py'), config, '--num-images', 1)
    # The backbone's share at 256 x 256 alone is 7 thousand millions.
    assert 7 < counted(capsys.readouterr().out) < 25
