"""The choice between kernels and plain bodies, and the cache of index tensors."""

import contextlib
import threading

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from mmvitbackbones.ops import plain, why_plain
from mmvitbackbones.ops.backend import cached, recomputed


def linear_with(change):
    layer = nn.Linear(4, 4)
    change(layer)
    return layer


class Scaled(torch.Tensor):
    """A subclass, as quantisation and sharding bring."""


class Observer(TorchFunctionMode):
    """Sees every function of torch."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class LoRA(nn.Linear):
    """What wraps a layer is another layer."""


LAYERS = {
    'none that a kernel replaces': LoRA(4, 4),
    'none that a kernel replaces: ParametrizedLinear': parametrizations.weight_norm(
        nn.Linear(4, 4)
    ),
    'has a forward of its own': linear_with(lambda x: setattr(x, 'forward', x.forward)),
    'has hooks': linear_with(lambda x: x.register_forward_hook(print)),
    'has hooks: before': linear_with(lambda x: x.register_forward_pre_hook(print)),
    'has hooks: backward': linear_with(lambda x: x.register_full_backward_hook(print)),
    'has no bias': nn.Linear(4, 4, bias=False),
    'drops': nn.Dropout(0.5).train(),
    'is no depth-wise 3x3': nn.Conv2d(4, 4, 5, padding=2, groups=4),
    'is no depth-wise 3x3: dense': nn.Conv2d(4, 4, 3, padding=1),
    'is no depth-wise 3x3: two a group': nn.Conv2d(4, 8, 3, padding=1, groups=4),
    'is no depth-wise 3x3: dilated': nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),
    'is no depth-wise 3x3: shrinks': nn.Conv2d(4, 4, 3, groups=4),
    'is no depth-wise 3x3: reflects': nn.Conv2d(
        4, 4, 3, padding=1, groups=4, padding_mode='reflect'
    ),
    'has weights of another kind': linear_with(
        lambda x: setattr(x, 'weight', nn.Parameter(x.weight.detach().as_subclass(Scaled)))
    ),
}


@pytest.mark.parametrize('reason', LAYERS)
def test_a_changed_layer_is_not_replaced(reason):
    assert reason.split(':')[0] in why_plain(torch.zeros(1), nn.Linear(4, 4), LAYERS[reason])


@pytest.mark.parametrize(
    'layer',
    [
        nn.Linear(4, 4),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        nn.Dropout(0.5).eval(),
        nn.Dropout(0.0),
        None,
    ],
    ids=str,
)
def test_an_unchanged_layer_is_replaced(layer):
    assert why_plain(torch.zeros(1), layer) is None


def test_hooks_on_all_modules():
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert 'hooks on all modules' in why_plain(torch.zeros(1), nn.Linear(4, 4))
    finally:
        handle.remove()
    assert why_plain(torch.zeros(1), nn.Linear(4, 4)) is None


MODES = {
    'plain() is entered': plain,
    'a mode': FakeTensorMode,
    'sees every call': Observer,
    'FlopCounterMode': lambda: FlopCounterMode(display=False),
    'forward-mode': forward_ad.dual_level,
}


@pytest.mark.parametrize('reason', MODES)
def test_a_mode_gets_the_plain_body(reason):
    x = torch.zeros(1)
    with MODES[reason]():
        assert reason in why_plain(x)
    assert why_plain(x) is None


@pytest.mark.parametrize(
    'reason, x',
    [
        ('no kernel for meta', torch.zeros(1, device='meta')),
        ('fake', FakeTensorMode().from_tensor(torch.zeros(1))),
        ('Scaled', torch.zeros(1).as_subclass(Scaled)),
    ],
)
def test_a_tensor_gets_the_plain_body(reason, x):
    assert reason in why_plain(x)


def test_a_default_device_is_no_mode_that_watches():
    with torch.device('cpu'):
        assert why_plain(torch.zeros(1)) is None


def test_autocast_casts_weights():
    with torch.autocast('cpu', torch.bfloat16):
        assert why_plain(torch.zeros(1)) is None
        assert 'autocast' in why_plain(torch.zeros(1), weights=True)


@pytest.mark.parametrize(
    'reason, record',
    [
        ('traced', lambda f, x: torch.jit.trace(f, x, check_trace=False)),
        ('torch.func', lambda f, x: torch.func.vmap(f)(x)),
        ('torch.func', lambda f, x: torch.func.grad(lambda x: f(x).sum())(x)),
    ],
)
def test_recorders_get_the_plain_body(reason, record):
    reasons = []

    def f(x):
        reasons.append(why_plain(x))
        return 2 * x

    record(f, torch.ones(3))
    assert reason in reasons[0]


class Reason(nn.Module):
    """One more where a kernel would compute."""

    def forward(self, x):
        return x + 1 if why_plain(x) is None else x


@pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < '2.12',
    reason='older torch cannot tell the two apart',
)
def test_compilers_get_kernels_and_exporters_plain_bodies():
    x = torch.zeros(2)
    compiled = torch.compile(Reason(), fullgraph=True, backend='aot_eager')
    assert torch.equal(compiled(x), x + 1)
    assert torch.equal(torch.export.export(Reason(), (x,)).module()(x), x)


class Again(nn.Module):
    """Fused attention of which nothing is kept."""

    def forward(self, x):
        return recomputed(nn.functional.scaled_dot_product_attention, x, x, x)


def test_what_is_computed_again_is_exported():
    x = torch.randn(1, 2, 5, 8, requires_grad=True)
    program = torch.export.export(Again(), (x,), strict=False)
    torch.testing.assert_close(program.module()(x), Again()(x))


def test_plain_nests_ends_with_an_error_and_reaches_threads():
    x, seen = torch.zeros(1), []
    with contextlib.suppress(KeyError), plain():
        with plain():
            pass
        thread = threading.Thread(target=lambda: seen.append(why_plain(x)))
        thread.start()
        thread.join()
        raise KeyError
    assert seen == ['plain() is entered']
    assert why_plain(x) is None


def test_index_tensors_are_kept_but_no_fake_ones():
    made = []

    @cached
    def indices(length, device):
        made.append(length)
        return torch.arange(length, device=device)

    cpu = torch.device('cpu')
    with FakeTensorMode():
        assert indices(3, cpu) is not indices(3, cpu)
    torch.compile(lambda: indices(3, cpu), fullgraph=True, backend='aot_eager')()
    made.clear()
    with torch.inference_mode():
        first = indices(3, cpu)
    assert type(first) is torch.Tensor and not first.is_inference()
    assert indices(3, cpu) is first and made == [3]
    # Autograd keeps it for the backward pass, which it refuses of inference tensors.
    weight = torch.ones(3, requires_grad=True)
    (weight * indices(3, cpu)).sum().backward()
    assert torch.equal(weight.grad, torch.arange(3.0))
