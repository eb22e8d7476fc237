"""Trainings that are ended, and go on as if they had not been."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import own_data_folders as folders
import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')

from narrow_configs import DIMS, narrow_config
from running_tools import run, run_process

from mmvitbackbones.checkpoints import newest_checkpoint
from mmvitbackbones.zoo import get_config

TESTS = Path(__file__).parents[1]
SIZES = dict(mmdet=['64', '96'], mmseg=['64'], mmpretrain=['64'])
MAKE = dict(mmdet=folders.make_coco, mmseg=folders.make_maps, mmpretrain=folders.make_class_folders)
DETECTOR_OF = dict(vil='retinanet_vil_s_1x', rmt='retinanet_rmt_t_1x')
SWEEP = pytest.mark.sweep


class Training:
    """A narrow config on a small data set, in three epochs of three steps, each saved."""

    def __init__(self, name, folder):
        cfg = narrow(name)
        cfg.custom_imports = dict(imports=['mmvitbackbones', 'ended_runs'])
        cfg.randomness = dict(seed=3)
        self.scope = cfg.default_scope
        self.config, self.data = folder / f'{name}.py', folder / 'data'
        self.folder = folder
        cfg.dump(self.config)
        MAKE[self.scope](self.data)

    def run(self, work_dir, *arguments, workers=0, how=run, options=()):
        """Train, or go on; return the process as it ended."""
        batch = 10 if self.scope == 'mmpretrain' else 2
        return how(
            *('train', self.config, '--data', self.data, '--work-dir', self.folder / work_dir),
            *('--epochs', 3, '--batch-size', batch, '--workers', workers),
            *('--image-size', *SIZES[self.scope], *arguments),
            options=['default_hooks.logger.interval=1', *options],
        )

    def end(self, work_dir, iteration, how, workers=0, options=()):
        """Train until the process is ended in an iteration, in a process of its own."""
        ends = dict(type='EndRun', iteration=iteration, how=how)
        options = [*options, *(f'default_hooks.end.{key}={value}' for key, value in ends.items())]
        return self.run(work_dir, workers=workers, how=run_process, options=options)

    def last(self, work_dir):
        """The last checkpoint."""
        folder = self.folder / work_dir
        return folder / (folder / 'last_checkpoint').read_text()


def narrow(name):
    if not name.startswith('cls_'):
        return narrow_config(name)
    cfg = get_config(name)
    cfg.model.backbone.arch = narrow_config(DETECTOR_OF[name.split('_')[1]]).model.backbone.arch
    cfg.model.neck.in_channels = DIMS[-1]
    if cfg.model.neck.type == 'NormAndPool':
        cfg.model.head.in_channels = DIMS[-1]
    return cfg


@pytest.fixture(autouse=True)
def with_ended_runs(monkeypatch):
    monkeypatch.setenv('PYTHONPATH', str(TESTS))


def same(a, b):
    """Whether nested contents are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize(
    'name, iteration, how',
    [
        ('maskrcnn_rmt_t_1x', 8, 'killed'),
        ('upernet_focal_t_160k', 6, 'in_a_write'),
        pytest.param('cls_rmt_t_in1k', 5, 'in_a_write', marks=SWEEP),  # a moving average
        pytest.param('cls_vil_s_in1k', 8, 'killed', marks=SWEEP),  # random shifts end in between
        pytest.param('cascade_maskrcnn_regionvit_s_3x', 5, 'killed', marks=SWEEP),
    ],
)
def test_resumed_is_as_never_killed(name, iteration, how, tmp_path):
    training = Training(name, tmp_path)
    one = ['default_hooks.checkpoint.max_keep_ckpts=1']
    done = training.run('whole')
    assert done.returncode == 0, done.stderr[-2000:]
    assert training.end('killed', iteration, how, workers=2, options=one).returncode == -9
    (left,) = (tmp_path / 'killed').glob('*.pth')
    unfinished = [*(tmp_path / 'killed').glob('.*.pth.*')]
    assert len(unfinished) == (how == 'in_a_write')
    before = torch.load(left, weights_only=True)['state_dict']
    done = training.run('killed', '--resume', options=one)
    assert done.returncode == 0 and 'resumed epoch' in done.stderr + done.stdout
    last = training.last('killed')
    assert [*(tmp_path / 'killed').glob('*.pth')] == [last] != [left]
    whole, resumed = (
        torch.load(path, weights_only=True) for path in (training.last('whole'), last)
    )
    for part in whole.keys() - {'meta', 'message_hub'}:
        assert same(whole[part], resumed[part]), part
    assert not same(before, whole['state_dict'])
    assert not [*(tmp_path / 'killed').glob('.*.pth.*')]

    done = training.run('killed', '--resume')
    assert done.returncode == 0 and 'the training, which is finished: ' in done.stderr
    assert 'Iter(train)' not in done.stdout + done.stderr


@pytest.mark.parametrize('how', ['disk_full_when_saving', 'disk_full_when_logging'])
def test_a_full_disk(how, tmp_path):
    training = Training('semfpn_rmt_t_80k', tmp_path)
    done = training.end('work', 5, how)
    assert done.returncode == 1 and 'Traceback' not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == (
        f'error: the disk of {tmp_path}/work is full ('
        + dict(saving='No space left on device', logging='File too large')[how.split('_')[-1]]
        + '), so the run has ended. Checkpoints written before are whole: make room, then '
        'train.py --resume'
    )
    (path,) = (tmp_path / 'work').glob('*.pth')
    assert newest_checkpoint(tmp_path / 'work') == (str(path), [])
    assert not [*(tmp_path / 'work').glob('.*')]


def test_what_cannot_be_resumed_is_said(tmp_path):
    training = Training('semfpn_rmt_t_80k', tmp_path)
    done = training.run('new', '--resume', '--print-config')
    assert done.returncode == 0
    assert f'there is no checkpoint in {tmp_path}/new: the training starts anew' in done.stderr
    assert training.run('work').returncode == 0
    last = tmp_path / 'work' / 'iter_9.pth'
    last.write_bytes(last.read_bytes()[:5000])
    done = training.run('work', '--resume')
    assert done.returncode == 0
    assert f"'{last}' is not a PyTorch checkpoint, or is damaged or cut short\n" in done.stderr
    assert f'resuming from {tmp_path}/work/iter_6.pth instead' in done.stderr
    assert 'resumed epoch: 0, iter: 6' in done.stdout + done.stderr
    for path in (tmp_path / 'work').glob('*.pth'):
        path.write_bytes(path.read_bytes()[:5000])
    done = training.run('work', '--resume')
    assert done.returncode == 2 and 'To start anew, take another --work-dir' in done.stderr


@pytest.mark.sweep
def test_openmmlabs_own_tool(tmp_path):
    training = Training('maskrcnn_rmt_t_1x', tmp_path)
    saved = tmp_path / 'saved.py'
    options = [
        *('default_hooks.end.type=EndRun', 'default_hooks.end.iteration=6'),
        *('default_hooks.end.how=in_a_write', 'default_hooks.checkpoint.max_keep_ckpts=1'),
    ]
    assert training.run('work', '--save-config', saved, options=options).returncode == 0
    package = Path(find_spec('mmdet').origin).parent
    tool = package / '.mim' / 'tools' / 'train.py'
    command = [sys.executable, tool, saved]
    ended = subprocess.run(command, capture_output=True, start_new_session=True)
    assert ended.returncode == -9
    (tmp_path / 'work' / 'last_checkpoint').write_text('')
    command += ['--resume', '--cfg-options', 'default_hooks.end.iteration=0']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout + done.stderr
    assert f'{tmp_path}/work/last_checkpoint is empty' in said and 'resumed epoch: 1' in said
    assert [path.name for path in (tmp_path / 'work').glob('*.pth')] == ['epoch_3.pth']
