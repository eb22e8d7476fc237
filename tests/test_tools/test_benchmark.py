from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from running_tools import own_instances
from torch.autograd.profiler import profile

from mmvitbackbones.commands import benchmark
from mmvitbackbones.running.profile import product_flops, profile_run
from mmvitbackbones.stack import how_to_install

TOOL = Path(__file__).parents[2] / 'tools' / 'benchmark.py'
TINY_SWIN = ['embed_dims=12', 'depths=[1,1,1,1]', 'num_heads=[1,1,2,2]', 'out_indices=(1,3)']
SETTINGS = dict(batch=1, dtype='float32', device='cpu', compile=False, threads=1)


@pytest.fixture(autouse=True)
def one_thread():
    """Keep tiny operations of this process off OpenMP, whose threads spin on busy machines."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_here(*arguments: str) -> None:
    with own_instances():  # no toolbox is the default one
        benchmark.main([*arguments, '--device', 'cpu', '--threads', '1'])


def held(*job: object, **environment: str) -> int:
    """What ``peak_memory`` asks a fresh process for."""
    command = [sys.executable, str(TOOL), '--peak-of', repr(job)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.strip().rpartition('\n')[2])['held']


def test_against_a_rival_in_one_run(tmp_path, capsys):
    pytest.importorskip('mmdet')
    path = tmp_path / 'result.json'
    run_here(
        *('RegionViT', '--arch', 'tiny', '--cfg-options', 'drop_path_rate=0.1'),
        *('--vs', 'mmdet.SwinTransformer', '--vs-options', *TINY_SWIN),
        *('--shape', '32', '40', '--shape', '64', '32', '--repeats', '3', '--warmup', '1'),
        *('--no-memory', '--json', str(path)),
    )
    printed = capsys.readouterr().out
    assert '32 x 40' in printed and 'ours / rival' in printed
    written = json.loads(path.read_text())
    assert written['settings']['torch'] == torch.__version__
    assert written['settings']['omp_wait_policy'] == 'PASSIVE'
    assert [result['shape'] for result in written['results']] == [[32, 40], [64, 32]]
    for result in written['results']:
        ours, rival = result['models']['ours'], result['models']['rival']
        assert ours['config'] == dict(type='RegionViT', arch='tiny', drop_path_rate=0.1)
        assert rival['config']['depths'] == [1, 1, 1, 1]
        assert rival['parameters'] < ours['parameters']
        for quantity in ('forward', 'train'):
            for model in (ours, rival):
                times = model[quantity]
                assert len(times['seconds']) == 3
                assert times['median'] == statistics.median(times['seconds']) > 0
                assert times['min'] == min(times['seconds'])
            assert result['ratios'][quantity] == {
                name: ours[quantity][name] / rival[quantity][name] for name in ('median', 'min')
            }


def test_memory_counts_weights_gradients_and_batch(tmp_path):
    path = tmp_path / 'result.json'
    arguments = 'RegionViT --arch tiny --shape 96 96 --repeats 1 --warmup 1'
    run_here(*arguments.split(), '--json', str(path))
    (result,) = json.loads(path.read_text())['results']
    assert result['ratios'] == {}
    ours = result['models']['ours']
    weights = 4 * ours['parameters']
    forward, train = ours['forward_memory'], ours['train_memory']
    assert weights < forward['live'] < train['live']
    assert train['live'] > 2 * weights  # parameters and gradients
    assert forward['held'] < forward['process'] and train['held'] < train['process']

    settings = {**SETTINGS, 'batch': 17}
    batch = held(ours['config'], (96, 96), 'forward', settings, **benchmark.NO_HOLES)
    inputs = 16 * 3 * 96 * 96 * 4
    assert batch > forward['live'] + 2 * inputs


def test_spread_is_the_interquartile_range_over_the_median():
    class Clock:
        def __init__(self, *seconds):
            self.left = list(seconds)

        def seconds(self, quantity):
            order.append(self)
            return self.left.pop(0)

    order = []
    ours, rival = Clock(9, 1, 2, 3, 4, 5), Clock(9, 1, 1, 1, 1, 1)
    subjects = dict(ours=ours, rival=rival)
    found = benchmark.time_in_turn(subjects, 'train', dict(warmup=1, repeats=5))
    assert found['ours'] == dict(seconds=[1, 2, 3, 4, 5], median=3, min=1, spread=2 / 3)
    assert found['rival']['spread'] == 0
    assert order == [ours, rival] * 6


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
def test_types_and_modes(dtype):
    settings = {**SETTINGS, 'dtype': dtype}
    benchmark.find_backbone('RegionViT')
    subject = benchmark.Subject(dict(type='RegionViT', arch='tiny'), (32, 32), settings)
    seen = []
    subject.model.register_forward_hook(
        lambda model, _, __: seen.append(
            (model.training, torch.is_grad_enabled(), (torch.ones(1, 1) @ torch.ones(1, 1)).dtype)
        )
    )
    assert subject.seconds('forward') > 0 and subject.seconds('train') > 0
    assert seen == [(mode, mode, getattr(torch, dtype)) for mode in (False, True)]
    assert all(p.grad is None for p in subject.model.parameters())


def test_classifier(tmp_path):
    pytest.importorskip('mmpretrain')
    path = tmp_path / 'result.json'
    run_here(
        *('cls_vil_t_in1k', '--cfg-options', 'backbone.drop_path_rate=0.0', 'head.num_classes=7'),
        *('--vs', 'VisionLongformer', '--vs-options', 'arch=tiny', 'position=ape'),
        *('--shape', '64', '64', '--repeats', '1', '--warmup', '1', '--no-memory'),
        *('--json', str(path)),
    )
    (result,) = json.loads(path.read_text())['results']
    ours, rival = result['models']['ours'], result['models']['rival']
    # Four output norms less, a norm and a head of 384 channels more.
    more = 2 * 384 + 7 * 384 + 7 - 2 * (48 + 96 + 192 + 384)
    assert ours['parameters'] - rival['parameters'] == more
    assert ours['config']['backbone']['drop_path_rate'] == 0.0
    peak = held(ours['config'], (64, 64), 'train', SETTINGS)
    assert peak > 2 * 4 * ours['parameters']  # weights and gradients


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['cls_none'], 'cls_none'),
        (['cls_vil_t_in1k', '--arch', 'small'], 'backbone.arch=...'),
        (['RegionVit'], "no backbone 'RegionVit' in mmvitbackbones: allowed are"),
        (['RegionViT', '--vs', 'detectron.Swin'], 'allowed are mmdet, mmseg, mmpretrain'),
        (['RegionViT', '--arch', 'giant', '--no-memory'], "cannot build {'type': 'RegionViT'"),
        (['RegionViT', '--arch', 'tiny', '--cfg-options', 'arch.dims=8'], '--arch'),
        (['RegionViT', '--vs-options', 'a=1'], '--vs-options needs --vs'),
        (['RegionViT', '--shape', '8', '8', '--no-memory'], 'refuses its input'),
        (['RegionViT', '--json', 'no/such/folder/x.json'], 'no/such/folder/x.json'),
    ],
)
def test_bad_input_ends_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        run_here(*arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_unknown_rival_names_those_that_exist():
    pytest.importorskip('mmdet')
    with pytest.raises(benchmark.BenchmarkError, match='no backbone .Swim. .* SwinTransformer'):
        benchmark.find_backbone('mmdet.Swim')


def test_bad_name_from_the_shell_has_no_traceback():
    command = [sys.executable, str(TOOL), 'NoSuchBackbone', '--device', 'cpu']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().rpartition('\n')[2].startswith('error: no backbone')
    assert 'Traceback' not in done.stderr


def test_missing_toolbox_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmseg.models.backbones', None)
    monkeypatch.setitem(sys.modules, 'mmseg', None)
    remedy = re.escape(how_to_install('mmseg'))
    with pytest.raises(benchmark.BenchmarkError, match=f'try: {remedy}'):
        benchmark.find_backbone('mmseg.SwinTransformer')


def test_memory_process_that_fails_says_why():
    with pytest.raises(benchmark.BenchmarkError, match=r'no peak memory of RegionViT .*refuses'):
        benchmark.peak_memory(dict(type='RegionViT', arch='tiny'), (8, 8), 'forward', SETTINGS)


def test_profile_says_where_time_goes(tmp_path, capsys):
    path = tmp_path / 'result.json'
    run_here(
        *('RMT', '--arch', 'tiny', '--cfg-options', 'out_indices=[0]', '--shape', '64', '64'),
        *('--repeats', '1', '--warmup', '1'),
        *('--no-memory', '--profile', '--json', str(path)),
    )
    printed = capsys.readouterr().out
    assert 'forward, profile' in printed and 'floor' in printed
    ours = json.loads(path.read_text())['results'][0]['models']['ours']
    kinds = {'matrix products', 'attention', 'depth-wise convolutions', 'convolutions', 'norms'}
    for quantity in ('forward', 'train'):
        found = ours[f'{quantity}_profile']
        assert kinds <= found['shares'].keys() and found['gflops'] > 0
        assert sum(found['shares'].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    'kind, run',
    [
        ('matrix products', lambda x: x @ x),
        ('attention', lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None])),
        (
            'depth-wise convolutions',
            lambda x: F.conv2d(
                x.expand(1, 64, -1, -1), x[:64, None, :3, None].expand(-1, -1, -1, 3), groups=64
            ),
        ),
        ('activations', F.gelu),
        ('norms', lambda x: F.layer_norm(x, x.shape[1:])),
        ('copies', lambda x: torch.cat([x, x])),
        ('sums and products', lambda x: x + x),
    ],
)
def test_kinds_of_operations(kind, run):
    """The kind takes most of the time of a call that is nothing else."""
    x = torch.randn(256, 256)
    shares = profile_run(lambda: run(x)).shares
    assert shares[kind] == max(shares.values())


@pytest.mark.parametrize(
    'run',
    [
        lambda a, b, c: a @ b,
        lambda a, b, c: torch.mm(a, b, out=c),
        lambda a, b, c: F.linear(a, b.T, c[0]),
        lambda a, b, c: c.addmm_(a, b),
        lambda a, b, c: torch.addmm(c[0], a, b, out=c),
        lambda a, b, c: a.unflatten(0, (2, -1)) @ b.expand(2, -1, -1).contiguous(),
        lambda a, b, c: torch.bmm(a[None], b[None], out=c[None]),
    ],
)
def test_operations_of_a_product_are_counted_once(run):
    a, b, c = torch.randn(6, 5), torch.randn(5, 7), torch.randn(6, 7)
    with profile(record_shapes=True, use_kineto=False) as found:
        run(a, b, c)
    assert sum(map(product_flops, found.function_events)) == 2 * 6 * 5 * 7
