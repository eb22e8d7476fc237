"""What compilers, tracers, hooks and other tools of torch do with a backbone of each family."""

from __future__ import annotations

import copy

import pytest
import tiny_backbones
import torch
from tiny_backbones import OPTIONS, gradients, image, weighed
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmvitbackbones.ops import plain, why_plain

PARTIAL = 43, 59  # windows leave partial ones
# As docs/kernels.md says of older versions.
from_torch_2_12 = pytest.mark.skipif(
    torch.torch_version.TorchVersion(torch.__version__) < '2.12', reason='older torch differs'
)


def build(family, **options):
    if 'peg' not in tiny_backbones.LACKS.get(family, ()):
        options = dict(peg=True, **options)
    return tiny_backbones.build(family, **options)


@pytest.fixture(params=OPTIONS)
def family(request):
    return request.param


@pytest.fixture
def model(family):
    return build(family).eval()


@pytest.fixture
def x():
    return image(*PARTIAL, batch=2)


def equal(ours, theirs, tolerance=1e-9):
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


def compiled(model, **options):
    torch.compiler.reset()
    return torch.compile(model, fullgraph=True, **{'backend': 'aot_eager', **options})


# Compilation: one graph.


def test_compiled_forward(model, x):
    call = compiled(model, dynamic=False)
    with torch.no_grad():
        equal(call(x), model(x))


@pytest.mark.sweep
def test_compiled_for_sizes_that_change(model):
    """One graph for the first size, then one for all."""
    call = compiled(model)
    with torch.no_grad():
        for size in (PARTIAL, (64, 96), (45, 77)):
            equal(call(image(*size)), model(image(*size)))


@pytest.mark.parametrize('with_cp', [False, True])
def test_compiled_training_step(family, x, with_cp):
    model = build(family, with_cp=with_cp)
    expected, expected_grads = gradients(model, x)
    model.zero_grad()
    maps = compiled(model, dynamic=False)(x)
    weighed(maps).backward()
    equal(maps, expected)
    for name, parameter in model.named_parameters():
        equal([parameter.grad], [expected_grads[name]], 1e-8)


INDUCTOR = [  # one stage of one family in the suite, all in the sweep
    ('VisionLongformer', dict(out_indices=[0])),
    *(pytest.param(family, {}, marks=pytest.mark.sweep) for family in OPTIONS),
    pytest.param('RMT', dict(with_cp=True), marks=pytest.mark.sweep),
]


@from_torch_2_12
@pytest.mark.parametrize('family, options', INDUCTOR)
def test_compiled_by_inductor(family, options):
    """In float32, forward and training step."""
    x = image(*PARTIAL, dtype=torch.float32)
    model = build(family, dtype=torch.float32, **options)
    expected, expected_grads = gradients(model, x)
    model.zero_grad()
    maps = compiled(model, backend='inductor', dynamic=False)(x)
    weighed(maps).backward()
    equal(maps, expected, 1e-4)
    for name, wanted in expected_grads.items():
        found = model.get_parameter(name).grad
        assert (found - wanted).abs().max() <= 1e-4 * max(1, wanted.abs().max())


# Nothing of a tool stays behind.


def works_as_before(model, x, expected):
    """Plain inference, and a training step."""
    with torch.no_grad():
        equal(model(x), expected)
    model.zero_grad()
    _, grads = gradients(model, x)
    assert all(type(grad) is torch.Tensor and grad.isfinite().all() for grad in grads.values())


def test_after_fake_tensors(model, x):
    """At a size that nobody has asked for before."""
    x = image(51, 67, batch=2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = model(mode.from_tensor(x))
    assert all(isinstance(m, torch._subclasses.FakeTensor) for m in fake)
    with torch.no_grad():
        expected = copy.deepcopy(model)(x)
    assert [m.shape for m in fake] == [m.shape for m in expected]
    works_as_before(model, x, expected)


@pytest.mark.parametrize('strict', [False, True])
def test_export_and_what_comes_after(model, strict):
    x = image(53, 61, batch=2)
    program = torch.export.export(model, (x,), strict=strict)
    names = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in names if 'mmvitbackbones' in name]  # plain bodies only
    with torch.no_grad():
        expected = copy.deepcopy(model)(x)
        equal(program.module()(x), expected)
    works_as_before(model, x, expected)


@from_torch_2_12
def test_after_an_export_that_failed(model):
    """In the middle of the backbone, when index tensors have been made."""
    x = image(47, 63, batch=2)
    with torch.no_grad():
        expected = copy.deepcopy(model)(x)

    def fail(*_):
        raise ArithmeticError('on purpose')

    handle = model.stages[-1].register_forward_hook(fail)
    with pytest.raises(ArithmeticError):
        torch.export.export(model, (x,))
    handle.remove()
    works_as_before(model, x, expected)


# Layers that are watched, wrapped or replaced.


def test_hooks_are_called(model, x):
    """On every leaf that holds weights; with equal results."""
    with torch.no_grad():
        expected = model(x)
    called = set()
    leaves = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    assert {name.rsplit('.', 1)[-1] for name in leaves} >= {'fc1', 'fc2', 'proj'}
    for name, leaf in leaves.items():
        leaf.register_forward_hook(lambda *_, name=name: called.add(name))
    with torch.no_grad():
        equal(model(x), expected)
    assert called == leaves.keys()


@pytest.mark.parametrize('norm', [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings('ignore:.*weight_norm. is deprecated')
def test_weight_norm(model, x, norm):
    """As it only writes weights in another way, nothing changes; both its parts are trained."""
    with torch.no_grad():
        expected = model(x)
    block = model.stages[1].blocks[0]
    norm(block.ffn.fc1)
    norm(block.attn.proj)
    equal(model(x), expected)
    weighed(model(x)).backward()
    parameters = [*block.ffn.fc1.parameters(), *block.attn.proj.parameters()]
    assert len(parameters) == 6 and all(p.grad.abs().max() > 0 for p in parameters)


class LoRA(nn.Module):
    """A frozen linear layer beside a trained product of two small ones."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, 2, bias=False).to(base.weight)
        self.up = nn.Linear(2, base.out_features, bias=False).to(base.weight)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_low_rank_adaptation(model, x):
    """Of the feed-forward network and of the projections; what starts at zero changes nothing."""
    with torch.no_grad():
        expected = model(x)
    model.requires_grad_(False)
    block = model.stages[1].blocks[0]
    wrapped = [(block.ffn, 'fc1'), (block.attn, 'qk' if hasattr(block.attn, 'qk') else 'qkv')]
    for owner, name in wrapped:
        setattr(owner, name, LoRA(getattr(owner, name)))
    equal(model(x), expected)
    weighed(model(x)).backward()
    for owner, name in wrapped:
        assert getattr(owner, name).up.weight.grad.abs().max() > 0
    with torch.no_grad():
        block.ffn.fc1.up.weight.fill_(0.1)
        assert (model(x)[-1] - expected[-1]).abs().max() > 1e-4


@pytest.mark.filterwarnings('ignore')
def test_dynamic_quantisation(family):
    """A smoke test: int8 weights, nearly the same maps."""
    model = build(family, dtype=torch.float32).eval()
    x = image(*PARTIAL, dtype=torch.float32)
    kinds = {nn.Linear}
    small = torch.ao.quantization.quantize_dynamic(model, kinds, dtype=torch.qint8)
    assert not any(type(m) is nn.Linear for m in small.modules())
    with torch.no_grad():
        for ours, exact in zip(small(x), model(x)):
            assert (ours - exact).abs().mean() < 0.1 * exact.std()


@from_torch_2_12
@pytest.mark.filterwarnings('ignore')
def test_traced(model, x):
    """A smoke test at one size, on images that it was not traced with."""
    with torch.no_grad():
        traced = torch.jit.trace(model, x)
        other = image(*PARTIAL, batch=2, seed=2)
        equal(traced(other), model(other))


# Transformations of functions, and counting.


def test_vmap_equals_a_loop(model):
    batches = torch.stack([image(*PARTIAL, seed=seed) for seed in range(3)])
    with torch.no_grad():
        together = torch.vmap(model)(batches)
        for i, batch in enumerate(batches):
            equal([maps[i] for maps in together], model(batch))


def test_functional_call_and_its_gradients(model, x):
    expected, expected_grads = gradients(model, x)
    parameters = {name: p.detach().clone() for name, p in model.named_parameters()}

    def loss(parameters):
        maps = torch.func.functional_call(model, parameters, (x,))
        return weighed(maps), maps

    grads, maps = torch.func.grad(loss, has_aux=True)(parameters)
    equal(maps, expected)
    for name, grad in grads.items():
        equal([grad], [expected_grads[name]], 1e-8)


def test_plain_forward_and_backward_outside(family, x):
    """Checkpoints compute again what they computed, though kernels are back."""
    model = build(family, with_cp=True)
    expected, expected_grads = gradients(model, x)
    model.zero_grad()
    with plain():
        maps = model(x)
    equal(maps, expected)
    weighed(maps).backward()
    for name, parameter in model.named_parameters():
        equal([parameter.grad], [expected_grads[name]], 1e-8)


def test_second_derivatives(model):
    """Of the plain bodies, along one direction, against differences of first derivatives."""
    x, direction = image(33, 37), image(33, 37, seed=2)

    def slope(x):
        x = x.detach().requires_grad_()
        value = sum(y.square().mean() for y in model(x))
        (grad,) = torch.autograd.grad(value, x, create_graph=True)
        return x, (grad * direction).sum()

    with plain(), sdpa_kernel(SDPBackend.MATH):
        x, along = slope(x)
        (found,) = torch.autograd.grad(along, x)
        step = 1e-4 * direction
        wanted = (slope(x + step)[1] - slope(x - step)[1]) / 2e-4
    torch.testing.assert_close((found * direction).sum(), wanted, rtol=1e-4, atol=0)


@from_torch_2_12
@pytest.mark.parametrize('train', [False, True])
def test_operations_are_counted(model, x, train):
    """All of them: as many as of tensors without data, where no kernel can be."""

    def count(model, x):
        model.zero_grad()
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(train):
            total = sum(y.square().sum() for y in model(x))
            if train:
                total.backward()
        return counter.get_total_flops()

    found, expected = count(model, x), count(model.to('meta'), x.to('meta'))
    if train:  # torch's fused attention computes scores again in the backward pass
        assert expected <= found < 1.05 * expected
    else:
        assert found == expected > 0


def test_kernels_run_without_such_tools(x):
    """Else these tests compare plain bodies with themselves."""
    assert why_plain(x) is None
