"""The kernels for CUDA, without a GPU: by Triton's interpreter, and compiled for three GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compiled_kernels import ARCHITECTURES, compiled, launches

from mmvitbackbones.ops import backend, why_plain
from mmvitbackbones.ops.cuda import attend_in_place, attention
from mmvitbackbones.ops.fused import mask_as_channels
from mmvitbackbones.ops.windows import Neighbourhood, as_numbers
from mmvitbackbones.running.kernel_check import TOLERANCES

pytest.importorskip('triton')
sweep = pytest.mark.sweep
SCRIPT = Path(__file__).parents[1] / 'interpreted_kernels.py'
FORMS = {'RegionViT', 'Focal', 'ViL', 'ViL, one chunk'} | {
    f'RMT, {form}' for form in ('rows', 'columns', 'whole map')
}


@pytest.mark.parametrize(
    'dtype, options',
    [
        ('float32', dict(size=[5, 7], window=3, heads=1, dims=16)),
        pytest.param('float16', dict(size=[4, 5], window=2, heads=2, dims=16), marks=sweep),
        # Heads narrower than the tile that holds them.
        ('float32', dict(size=[3, 5], window=2, heads=1, dims=49)),
        # Several tiles of queries in a window, and of keys in a map.
        pytest.param('float32', dict(size=[13, 20], window=9, samples=2, dims=32), marks=sweep),
        pytest.param('float32', dict(size=[15, 29], window=7, samples=2, dims=49), marks=sweep),
        pytest.param('float16', dict(size=[15, 29], window=7, samples=2, dims=32), marks=sweep),
        pytest.param('float32', dict(size=[9, 70], window=4, heads=3, dims=64), marks=sweep),
        pytest.param('float16', dict(size=[70, 9], window=5, heads=3, dims=24), marks=sweep),
        pytest.param('float16', dict(size=[20, 31], window=15, heads=1, dims=16), marks=sweep),
    ],
)
def test_kernels_equal_plain_bodies(dtype, options):
    """Values and all gradients, of the attention of all four papers, masks and padding included."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), dtype, json.dumps(options)],
        env={**os.environ, 'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found) == FORMS
    most = TOLERANCES[getattr(torch, dtype)]
    assert {name: e for name, e in found.items() if not all(x < most for x in e)} == {}


@pytest.mark.parametrize(
    'arch, dtype, form',
    [
        (80, 'float16', 'Focal'),
        (90, 'bfloat16', 'RMT, 32'),
        *(
            pytest.param(arch, dtype, form, marks=sweep)
            for arch in ARCHITECTURES
            for dtype in ('float32', 'bfloat16', 'float16')
            for form in launches(torch.float32)
        ),
    ],
)
def test_kernels_compile_for_gpus_that_are_not_here(arch, dtype, form):
    """Without spills, in float32 small ones, and in the shared memory of every GPU since Ampere."""
    for launch in launches(getattr(torch, dtype))[form]:
        found = compiled(launch, arch)
        assert found.spilled <= (128 if dtype == 'float32' else 0), found
        assert found.shared < 99 * 1024, found


# What the operator says of itself, and who may call it.


def windows(trained=True):
    seen = [Neighbourhood((2, 3), (1, 1), (1, 2), wraps=True), Neighbourhood((1, 1))]
    maps = [torch.randn(2, *size, 3, 2, 16).requires_grad_(trained) for size in ((4, 9), (2, 3))]
    bias = torch.randn(2, 6, 25).requires_grad_(trained)
    return maps, seen, bias, torch.rand(6, 25) > 0.3


@pytest.fixture
def no_kernels(monkeypatch):
    """Results are of the right shapes, with no numbers in them."""
    monkeypatch.setattr(attention._Launch, '_run', lambda *args, **options: None)


@pytest.mark.usefixtures('no_kernels')
@pytest.mark.parametrize('check', ['test_schema', 'test_faketensor', 'test_autograd_registration'])
def test_operators_say_what_they_are(check):
    maps, seen, bias, valid = windows()
    numbers = as_numbers(seen)
    torch.library.opcheck(attention._forward, (maps, numbers, bias, valid, None), test_utils=check)
    maps, bias = [x.detach() for x in maps], bias.detach()
    out, lse = attention._forward(maps, numbers, bias, valid, None)
    arguments = torch.ones_like(out), out, lse, maps, numbers, bias, valid, None, True
    torch.library.opcheck(attention._backward, arguments, test_utils=check)


@pytest.mark.usefixtures('no_kernels')
def test_a_compiler_sees_one_call():
    """No break of the graph, forward or backward; and none for another number of windows."""
    maps, seen, bias, valid = windows()

    def step(maps, bias):
        return attend_in_place(maps, seen, bias, valid)

    y = torch.compile(step, backend='aot_eager', fullgraph=True)(maps, bias)
    assert y.shape == (2, 4, 9, 32)
    y.sum().backward()
    assert all(x.grad.shape == x.shape for x in (*maps, bias))


def test_second_derivatives_of_the_kernel_are_refused(no_kernels):
    maps, seen, bias, valid = windows()
    y = attend_in_place(maps, seen, bias, valid)
    (grad,) = torch.autograd.grad(y.sum(), bias, create_graph=True)
    with pytest.raises(RuntimeError, match='map_attention_backward.* under mmvitbackbones.ops'):
        torch.autograd.grad(grad.sum(), bias)


class OnCuda:
    """As much of queries on a GPU as the choice looks at."""

    def __init__(self, dims=32, dtype=torch.float32):
        self.device, self.dtype, self.shape = torch.device('cuda'), dtype, (2, 100, 3, dims)


def test_who_may_take_the_kernel(monkeypatch):
    """It is off unless it is switched on; what it cannot do is said."""
    assert 'set MMVIT_CUDA_KERNELS=1' in why_plain(OnCuda(), attention=True)
    monkeypatch.setattr(backend, '_cuda_kernels', True)
    monkeypatch.setattr(backend, '_has_triton', True)
    monkeypatch.setattr(backend, '_observer', lambda x: None)
    for dims in (16, 32, 49, 64):
        assert why_plain(OnCuda(dims), attention=True) is None
    assert why_plain(OnCuda(8), attention=True) == 'heads are 8 wide, not 16 to 64'
    assert why_plain(OnCuda(96), attention=True) == 'heads are 96 wide, not 16 to 64'
    assert 'no float64' in why_plain(OnCuda(dtype=torch.float64), attention=True)
    # All that is not attention has no kernel there.
    assert why_plain(OnCuda()) == 'there is no kernel for cuda but that of attention'
    monkeypatch.setattr(backend, '_has_triton', False)
    assert 'Triton' in why_plain(OnCuda(), attention=True)


@pytest.mark.parametrize('value, outcome', [('', False), ('0', False), ('1', True)])
def test_the_switch(value, outcome):
    assert backend._is_switched_on(value) is outcome


def test_a_switch_that_is_mistyped():
    with pytest.raises(ValueError, match="MMVIT_CUDA_KERNELS must be 1 .* or 0, got 'yes'"):
        backend._is_switched_on('yes')


# The plain body on CUDA.


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('dims', [7, 8, 32])
def test_a_mask_as_channels(dims, dtype):
    """Forbidden keys get no weight and no gradient, and neither gets what masks them."""
    torch.manual_seed(0)
    shape = 6, 2, 5, dims
    q, k, v = (torch.randn(shape).to(dtype).requires_grad_() for _ in range(3))
    bias, valid = torch.randn(2, 5, 5).to(dtype), torch.rand(6, 1, 1, 5) > 0.4
    valid[..., 0] = True
    long_q, long_k = mask_as_channels(q, k, valid)
    assert long_q.shape[-1] % 8 == 0 and long_q.shape[-1] > dims

    def attend(q, k, mask):
        scores = q.float() @ k.float().mT * dims**-0.5 + mask
        return scores.softmax(-1).to(dtype) @ v

    found = attend(long_q, long_k, bias)
    expected = attend(q, k, bias.float().masked_fill(~valid, float('-inf')))
    slope = torch.randn_like(found)
    for ours, theirs in zip(
        [found, *torch.autograd.grad(found, (q, k, v), slope)],
        [expected, *torch.autograd.grad(expected, (q, k, v), slope)],
    ):
        torch.testing.assert_close(ours, theirs)
