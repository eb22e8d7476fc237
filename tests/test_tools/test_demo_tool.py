"""``make demo``, short: two processes train a detector, whose pictures are drawn meanwhile."""

import re
import sys

import cv2
import pytest

pytest.importorskip('mmdet')

from running_tools import ROOT, run, run_process

FEW = (
    *('demo.max_iters=4', 'demo.log_interval=1', 'val_dataloader.dataset.indices=4'),
    'model.test_cfg.rcnn.score_thr=0.0',
)


def test_two_processes(tmp_path):
    done = run_process('demo', 'rmt', '--work-dir', tmp_path, '--seed', 3, options=FEW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Warning' not in done.stderr
    # OneDL's mmdet says on import what it lacks.
    first, *lines = [line for line in done.stdout.splitlines() if 'import OneDL' not in line]
    assert first == (
        f'Training configs/demo_maskrcnn_rmt.py; what it prints goes to {tmp_path}/log.txt'
    )
    text = '\n'.join(lines)
    assert len(lines) < 40  # no log
    assert re.search(r'^First pictures after .*: \S*/progress.png$', text, re.MULTILINE)
    assert re.search(r'^\d of 4 iterations, loss \d+\.\d\d, .*\d s left$', text, re.MULTILINE)
    assert re.search(r'^box mAP 0\.\d{3} \(mAP@50 0\.\d{3}\)$', text, re.MULTILINE)
    assert re.search(r'^mask mAP 0\.\d{3} \(mAP@50 0\.\d{3}\)$', text, re.MULTILINE)
    # The truth, after 1, 2 and 4 iterations, and features.
    assert cv2.imread(str(tmp_path / 'progress.png')).shape == (24 + 4 * 256, 5 * 256, 3)
    log = (tmp_path / 'log.txt').read_text()
    assert 'GPU number: 2' in log and 'seed=3' in log and 'Distributed training: True' in log

    # What is said to come next can be run.
    commands = [line.strip() for line in text.partition('Next:')[2].splitlines()]
    commands = [line for line in commands if line and line[0] != '#']
    assert len(commands) == 3
    _, tool, *arguments = commands[0].split()
    assert tool == 'tools/test.py'
    assert run('test', *arguments, options=['test_dataloader.dataset.indices=1']).returncode == 0
    assert [*(tmp_path / 'all').glob('*.png')] or [*(tmp_path / 'all').glob('*.jpg')]
    python, rest = commands[1].split(maxsplit=1)
    assert (ROOT / python).samefile(sys.executable) and rest == 'tools/demo.py rmt --long'
    assert (ROOT / commands[2].split()[2]).is_file()


@pytest.mark.parametrize(
    'arguments, options, status, problem',
    [
        (['swin'], [], 2, "invalid choice: 'swin'"),
        ([], ['demo.batch_size=3'], 2, 'demo.batch_size=3 is no multiple of 2 processes'),
        ([], ['model.type=Nothing'], 2, 'model.type=Nothing: no class has that name'),
        (['--processes', '1'], ['optim_wrapper.optimizer.lr=-1'], 1, 'Invalid learning rate'),
    ],
)
def test_what_fails_is_said(arguments, options, status, problem, tmp_path):
    processes = [] if '--processes' in arguments else ['--processes', '2']
    done = run('demo', *arguments, *processes, '--work-dir', tmp_path, options=options)
    assert done.returncode == status and problem in done.stderr
