"""What holds for the backbones of all families."""

import contextlib
import copy
import io
import itertools
import math
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_backbones
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS
from tiny_backbones import LACKS, OPTIONS, gradients, image, weighed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmvitbackbones.layers import Residual
from mmvitbackbones.ops import plain, why_plain

ROOT = Path(__file__).parents[2]


def has(family, *options):
    return not LACKS.get(family, set()) & {*options}


def build(family, **options):
    """A tiny model with those of the options that its family has."""
    options = {name: value for name, value in options.items() if has(family, name)}
    return tiny_backbones.build(family, **options)


@pytest.fixture(params=OPTIONS)
def family(request):
    return request.param


def is_frozen(module):
    return not any(p.requires_grad for p in module.parameters())


# Shapes, batches and inputs.


@pytest.mark.parametrize('size', [(33, 45), (32, 1200)])
@pytest.mark.parametrize(
    'family, options',
    [*((family, {}) for family in OPTIONS), ('RMT', dict(decay='product', attention='whole'))],
    ids=str,
)
def test_an_empty_batch_stays_empty(family, options, size):
    """As in torch's own layers: maps without a sample, gradients of zero."""
    model = build(family, **options).eval()
    maps = model(image(*size, batch=0))
    assert [m.shape[0] for m in maps] == [0] * 4
    assert [m.shape[1:] for m in maps] == [m.shape[1:] for m in model(image(*size))]
    sum(m.sum() for m in maps).backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize('size', [(32, 32), (64, 96), (33, 45), (50, 97), (35, 32), (37, 130)])
@pytest.mark.parametrize(
    'family, parts, options',
    [
        ('RegionViT', dict(stem='3-conv'), {}),
        ('RegionViT', dict(stem='1-conv'), dict(window_size=14)),
        ('RegionViT', {}, dict(window_size=1)),
        ('RegionViT', dict(regional=False), {}),
        ('FocalTransformer', {}, {}),
        ('FocalTransformer', {}, dict(window_size=7)),
        ('FocalTransformer', {}, dict(use_conv_embed=True)),
        ('RMT', {}, {}),
        ('RMT', dict(stem='patch', downsample='patch'), {}),
        ('RMT', {}, dict(decay=None)),
        ('VisionLongformer', {}, {}),
        ('VisionLongformer', {}, dict(window_size=7, position='ape', num_global_tokens=0)),
        ('VisionLongformer', {}, dict(attention='full', position='ape', pretrain_img_size=40)),
    ],
    ids=str,
)
def test_shapes(family, parts, options, size):
    arch = {**OPTIONS[family]['arch'], **parts}
    model = build(family, peg=True, **{**options, 'arch': arch}).eval()
    with torch.no_grad():
        maps = model(image(*size, batch=2))
    assert len(maps) == 4
    for stage, found in enumerate(maps):
        sides = (math.ceil(side / (4 * 2**stage)) for side in size)
        assert found.shape == (2, arch['dims'][stage], *sides)
        assert found.is_contiguous()  # compiled operations read the memory as it lies
        assert found.isfinite().all()


def test_samples_do_not_depend_on_each_other(family):
    model, batch = build(family, peg=True).eval(), image(45, 70, batch=3)
    with torch.no_grad():
        together = model(batch)
        for i in range(3):
            for ours, alone in zip(together, model(batch[i : i + 1])):
                torch.testing.assert_close(ours[i : i + 1], alone, atol=1e-12, rtol=0)


def test_memory_layout_of_the_image_does_not_matter(family):
    model, x = build(family).eval(), image(45, 70, batch=2)
    strided = torch.stack([x, x], dim=-1)[..., 0]
    with torch.no_grad():
        for a, b, c in zip(
            model(x), model(x.to(memory_format=torch.channels_last)), model(strided)
        ):
            assert torch.equal(a, b) and torch.equal(a, c)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(family, dtype):
    # Batch statistics would leave nothing but rounding of the gradients of biases before them.
    model = build(family, dtype=torch.float32, peg=True, norm_eval=True).train()
    x = image(45, 70, batch=2, dtype=torch.float32)
    expected, precise = gradients(model, x)
    model.zero_grad()
    with torch.autocast('cpu', dtype):
        maps = model(x)
    weighed([m.float() for m in maps]).backward()
    for ours, wanted in zip(maps, expected):
        error = (ours.float() - wanted).square().mean().sqrt()
        assert error < 0.03 * wanted.std()
    for name, parameter in model.named_parameters():
        error = (parameter.grad - precise[name]).norm()
        assert error < 0.15 * precise[name].norm() + 1e-3, name


@pytest.mark.parametrize(
    'shape, words',
    [
        ((1, 3, 31, 64), ['at least 32 x 32', '31 x 64']),
        ((1, 3, 64, 31), ['at least 32 x 32', '64 x 31']),
        ((1, 1, 64, 64), ['(B, 3, H, W)', '(1, 1, 64, 64)']),
        ((1, 4, 64, 64), ['(B, 3, H, W)', '(1, 4, 64, 64)']),
        ((3, 64, 64), ['(B, 3, H, W)', 'in_channels is 3', '(3, 64, 64)']),
    ],
)
def test_bad_images(family, shape, words):
    with pytest.raises(ValueError) as error:
        build(family)(torch.zeros(shape))
    for word in [family, *words]:
        assert word in str(error.value)


@pytest.mark.parametrize('channels', [1, 4])
def test_images_of_other_channels(family, channels):
    """All of them are read; images of colours are refused."""
    model = build(family, in_channels=channels)
    x = torch.randn(2, channels, 45, 70, dtype=torch.float64, requires_grad=True)
    weighed(model(x)).backward()
    assert all(x.grad[:, i].abs().max() > 0 for i in range(channels))
    with pytest.raises(ValueError, match=f'in_channels is {channels}'):
        model(image(45, 70))


# Gradients.


def test_kernels_equal_plain_bodies(family):
    """The whole model, values and gradients."""
    results = []
    for body in (contextlib.nullcontext, plain):
        model = build(family, peg=True)
        x = image(43, 59, batch=3).requires_grad_()
        with body():
            assert (why_plain(x) is None) == (body is not plain)
            maps = model(x)
        sum(m.square().mean() for m in maps).backward()
        results.append([*maps, x.grad, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize('out_indices', [None, (0,), (1, 3)])
def test_channels_and_strides(family, out_indices):
    """Of the maps that are emitted, for whoever builds a neck on them."""
    model, size = build(family, out_indices=out_indices), (43, 59)
    for found, channels, stride in zip(model(image(*size)), model.channels, model.strides):
        assert found.shape == (1, channels, *(math.ceil(side / stride) for side in size))
    assert len(model.channels) == len(model.strides) == len(out_indices or range(4))


@pytest.mark.parametrize('rates', [{}, dict(drop_path_rate=0.5, drop_rate=0.2, attn_drop_rate=0.2)])
def test_with_cp_equals_without(family, rates):
    """Also where the blocks draw random numbers."""
    x, results, calls = image(33, 45, batch=2), [], []
    for with_cp in (False, True):
        model = build(family, with_cp=with_cp, peg=True, **rates)
        blocks = [block for stage in model.stages for block in stage.blocks]
        counts = [0]
        for block in blocks:
            block.register_forward_pre_hook(
                lambda *_, counts=counts: counts.__setitem__(0, counts[0] + 1)
            )
        torch.manual_seed(3)
        results.append(gradients(model, x))
        calls.append(counts[0] / len(blocks))
    assert calls == [1, 2]
    (maps, grads), (maps_cp, grads_cp) = results
    assert grads.keys() == grads_cp.keys() == dict(model.named_parameters()).keys()
    for a, b in [*zip(maps, maps_cp), *((grads[n], grads_cp[n]) for n in grads)]:
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('out_norm', ['inline', 'output', None])
@pytest.mark.parametrize('out_indices', [None, (1,), (0, 2)])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 1])
def test_every_trainable_parameter_gets_a_gradient(family, out_norm, out_indices, frozen_stages):
    """As data-parallel training needs."""
    options = dict(out_norm=out_norm, out_indices=out_indices, frozen_stages=frozen_stages)
    model = build(family, peg=True, **options)
    _, grads = gradients(model, image(33, 45))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert grads.keys() == trainable
    assert all(grad.isfinite().all() for grad in grads.values())


# Options.


@pytest.mark.parametrize('out_norm', ['inline', 'output', None])
def test_hooks_find_the_maps_that_leave(family, out_norm):
    """As Grad-CAM of other packages needs them: channels first, by a module's name."""
    model, found = build(family, out_norm=out_norm, out_indices=(1, 3)), []
    for i in (1, 3):
        model.get_submodule(f'maps.{i}').register_forward_hook(lambda *hooked: found.append(hooked))
    maps = model(image(33, 45))
    assert len(found) == 2 and all(hooked[-1] is output for hooked, output in zip(found, maps))


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 4])
def test_frozen_stages(family, frozen_stages):
    model = build(family, frozen_stages=frozen_stages, drop_rate=0.1, out_norm='inline').train()
    stages = [frozen_stages > i for i in range(4)]
    assert is_frozen(model.stem) == (frozen_stages >= 0)
    assert [is_frozen(stage) for stage in model.stages] == stages
    assert [is_frozen(norm) for norm in model.out_norms] == stages
    assert model.stem.training == (frozen_stages < 0)
    for stage, frozen in zip(model.stages, stages):
        assert {module.training for module in stage.modules()} == {not frozen}

    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        return
    before = copy.deepcopy(model.state_dict())
    gradients(model, image(33, 45))
    # With weight decay, as a bias before a batch normalisation has no gradient to move it.
    torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1).step()
    prefixes = [f'{part}.{i}.' for part in ('stages', 'out_norms') for i in range(frozen_stages)]
    prefixes += ['stem.'] * (frozen_stages >= 0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith(tuple(prefixes)), name


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval(family, norm_eval):
    model = build(family, norm_eval=norm_eval)
    model.stages[1].add_module('extra', nn.BatchNorm2d(4))
    assert model.train().stages[1].extra.training == (not norm_eval)
    assert model.stages[1].blocks[0].ffn.training
    assert not model.eval().stages[1].extra.training


@pytest.mark.parametrize('out_norm', ['inline', 'output', None])
@pytest.mark.parametrize('out_indices', [(0,), (1, 2), (3,)])
def test_out_indices(family, out_norm, out_indices):
    """Fewer outputs of the same values; stages after the last do not train."""
    whole = build(family, out_norm=out_norm).eval()
    part = build(family, out_norm=out_norm, out_indices=out_indices).eval()
    missing, unexpected = part.load_state_dict(whole.state_dict(), strict=False)
    assert not missing and all(name.startswith('out_norms') for name in unexpected)
    for stage in part.stages[out_indices[-1] + 1 :]:
        stage.forward = None  # not to be run
    x = image(33, 45)
    with torch.no_grad():
        maps, expected = part(x), whole(x)
    assert len(maps) == len(out_indices)
    for i, found in zip(out_indices, maps):
        assert torch.equal(found, expected[i])
    for i in range(4):
        assert is_frozen(part.stages[i]) == (i > out_indices[-1])


def test_out_norm(family):
    plain, output, inline = (
        build(family, out_norm=norm).eval() for norm in (None, 'output', 'inline')
    )
    for model in (output, inline):
        model.load_state_dict(plain.state_dict(), strict=False)
    inline.load_state_dict(output.state_dict())
    x = image(33, 45)

    def normed(i, tokens):
        norm = output.out_norms[i]
        return F.layer_norm(tokens, tokens.shape[-1:], norm.weight, norm.bias, eps=1e-5)

    with torch.no_grad():
        for i, (found, raw) in enumerate(zip(output(x), plain(x))):
            expected = normed(i, raw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            torch.testing.assert_close(found, expected)
        state = plain.stem(x)
        for i, found in enumerate(inline(x)):
            tokens, *others = plain.stages[i](*state)
            state = (normed(i, tokens), *others)
            torch.testing.assert_close(found, state[0].permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    'family, norm',
    [
        ('RegionViT', 'inline'),
        ('FocalTransformer', 'output'),
        ('RMT', 'output'),
        ('VisionLongformer', 'output'),
    ],
)
def test_default_out_norm(family, norm):
    assert build(family).out_norm == norm


@pytest.mark.parametrize(
    'family, option',
    [
        (family, option)
        for family in OPTIONS
        for option in ('drop_path_rate', 'drop_rate', 'attn_drop_rate')
        if has(family, option)
    ],
)
def test_drop_rates_act_in_training_only(family, option):
    model, x = build(family, **{option: 0.5}), image(33, 45)
    with torch.no_grad():
        last = model(x)[-1]
        assert not torch.allclose(model(x)[-1], last)
        expected = build(family).eval()
        expected.load_state_dict(model.state_dict())
        for found, wanted in zip(model.eval()(x), expected(x)):
            torch.testing.assert_close(found, wanted)


def test_drop_path_rises_from_the_first_to_the_last_block(family):
    model = build(family, drop_path_rate=0.2)
    rates = [
        {layer.drop_prob for layer in block.modules() if isinstance(layer, Residual)}
        for stage in model.stages
        for block in stage.blocks
    ]
    assert all(len(of_block) == 1 for of_block in rates)
    assert [*itertools.chain(*rates)] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


BAD_OPTIONS = [
    (dict(arch='huge'), ["arch must be one of 'tiny'", "'huge'"]),
    (dict(arch=None), ['arch', "'tiny'", 'dict', 'None']),
    (dict(arch={}), ['arch', 'depths, dims, heads']),
    (dict(init_cfg='file.pth'), ['init_cfg', "type='Pretrained'", "'file.pth'"]),
    (dict(peg='flase'), ['peg', 'True or False', 'flase']),
    (dict(with_cp='x'), ['with_cp', 'True or False']),
    (dict(norm_eval=1), ['norm_eval', 'True or False']),
    (dict(out_norm='both'), ['out_norm', "'inline', 'output', None", "'both'"]),
    (dict(out_indices=()), ['out_indices', '0..3', '()']),
    (dict(out_indices=(0, 4)), ['out_indices', '0..3', '4']),
    (dict(out_indices=(-1,)), ['out_indices', '0..3', '-1']),
    (dict(out_indices=(2, 1)), ['out_indices', 'rising', '(2, 1)']),
    (dict(out_indices=(1, 1)), ['out_indices', 'rising', '(1, 1)']),
    (dict(out_indices=(0.0, 1.0)), ['out_indices', '0..3']),
    (dict(out_indices=3), ['out_indices', '0..3', '3']),
    (dict(out_indices='01'), ['out_indices', 'integers', "'01'"]),
    (dict(frozen_stages=5), ['frozen_stages', '-1..4', '5']),
    (dict(frozen_stages=-2), ['frozen_stages', '-1..4', '-2']),
    (dict(frozen_stages=None), ['frozen_stages', '-1..4', 'None']),
    (dict(frozen_stages=1.0), ['frozen_stages', '-1..4', '1.0']),
    (dict(frozen_stages=True), ['frozen_stages', '-1..4', 'True']),
    (dict(drop_path_rate=1), ['drop_path_rate', 'at least 0', '1']),
    (dict(drop_rate=-0.1), ['drop_rate', 'at least 0', '-0.1']),
    (dict(attn_drop_rate='0.1'), ['attn_drop_rate', 'number', "'0.1'"]),
    (dict(in_channels=0), ['in_channels', 'positive integer', '0']),
    (dict(in_channels=3.0), ['in_channels', 'positive integer', '3.0']),
    (dict(in_channels=True), ['in_channels', 'positive integer', 'True']),
]


@pytest.mark.parametrize(
    'family, options, words',
    [
        (family, options, words)
        for family in OPTIONS
        for options, words in BAD_OPTIONS
        if has(family, *options)
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_options(family, options, words):
    with pytest.raises(ValueError) as error:
        build(family, **options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    'key, value, words',
    [
        ('depths', [1, 1], ['dims, heads, depths', 'as many stages']),
        ('depths', [1, 0, 1, 1], ['depths', 'positive integers']),
        ('dims', 16, ['dims', 'positive integers', '16']),
        ('heads', [3, 2, 4, 4], ['3 heads', 'channels']),
        ('extra', 2, ['depths, dims, heads', 'unknown: extra']),
        ('base', 'huge', ["arch['base'] must be one of 'tiny'", "'huge'"]),
        ('base', None, ["arch['base'] must be one of 'tiny'", 'None']),
    ],
)
def test_bad_arch(family, key, value, words):
    with pytest.raises(ValueError) as error:
        build(family, arch={**OPTIONS[family]['arch'], key: value})
    for word in ['arch', *words]:
        assert word in str(error.value)


def outline(family, arch):
    with torch.device('meta'):
        model = MODELS.build(dict(type=family, arch=arch))
    forms = [getattr(module, 'form', None) for module in model.modules()]
    return {name: tensor.shape for name, tensor in model.state_dict().items()}, forms


def test_base_of_an_arch(family):
    """What a dict leaves out is the base's; which stays as it was."""
    zoo = sys.modules[MODELS.get(family).__module__].ARCHS
    before, name = copy.deepcopy(zoo), list(zoo)[-1]
    depths = [1, 2, 1, 1][: len(zoo[name]['depths'])]
    arch = dict(base=name, depths=depths)
    shallow = outline(family, arch)
    assert shallow == outline(family, dict(zoo[name], depths=depths))
    assert shallow == outline(family, Config(dict(arch=arch)).arch)
    assert outline(family, dict(base=name)) == outline(family, name) != shallow
    assert zoo == before and arch == dict(base=name, depths=depths)


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(extra=2), ['unknown: extra', 'or a base']),
        (dict(depths=(2, 2)), ['dims, heads, depths', 'as many stages']),
        (dict(depths='2282'), ['depths', 'positive integers', "'2282'"]),
    ],
)
def test_bad_changes_of_a_base(family, changes, words):
    with pytest.raises(ValueError) as error:
        build(family, arch=dict(base='tiny', **changes))
    assert all(word in str(error.value) for word in words), error.value


# In OpenMMLab, and on disk.


@pytest.mark.parametrize('home', ['mmengine', 'mmdet', 'mmseg'])
def test_builds_from_a_config(family, home):
    registry = pytest.importorskip(f'{home}.registry')
    options = OPTIONS[family]
    model = registry.MODELS.build(dict(type=family, **options, out_indices=(1, 3)))
    assert type(model) is MODELS.get(family)
    dims = options['arch']['dims']
    assert [m.shape[1] for m in model(torch.zeros(1, 3, 32, 40))] == [dims[1], dims[3]]


def test_alone_in_a_fresh_process(family):
    """With mmcv-lite; and what is cached by size in inference mode must serve training."""
    options = dict(peg=True) if has(family, 'peg') else {}
    code = f"""
import sys
for name in ('mmdet', 'mmseg', 'mmpretrain', 'mmcv.ops', 'mmcv._ext', 'sklearn', 'pycocotools'):
    sys.modules[name] = None
sys.path.insert(0, 'tests')
import torch, mmvitbackbones
from tiny_backbones import build, gradients, image
model, x = build({family!r}, **{options}), image(43, 59)
with torch.inference_mode():
    expected = model(x)
maps, grads = gradients(model, x)
for found, wanted in zip(maps, expected):
    torch.testing.assert_close(found, wanted.clone(), atol=1e-12, rtol=0)
assert grads.keys() == dict(model.named_parameters()).keys()
"""
    command = [sys.executable, '-W', 'ignore', '-c', code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def through_a_file(model):
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(type(model).__name__, seed=7, peg=True)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other


@pytest.mark.parametrize(
    'duplicate',
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), through_a_file],
    ids=['deepcopy', 'pickle', 'state dict'],
)
def test_copies_are_equal_and_on_their_own(family, duplicate):
    model, x = build(family, peg=True).eval(), image(33, 45)
    with torch.no_grad():
        expected = model(x)  # before copying, so that whatever a forward pass leaves is there
        other = duplicate(model).eval()
        for found, wanted in zip(other(x), expected):
            assert torch.equal(found, wanted)
        for parameter in other.parameters():
            parameter.zero_()
        for found, wanted in zip(model(x), expected):
            assert torch.equal(found, wanted)


def test_state_dict_holds_parameters_only(family):
    """And the statistics of batch normalisation, but no index, mask or other buffer."""
    model = build(family, peg=True)
    model(image(33, 45))
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    assert bool(norms) == (family == 'RMT')
    statistics = {
        f'{norm}.{buffer}'
        for norm in norms
        for buffer in ('running_mean', 'running_var', 'num_batches_tracked')
    }
    assert dict(model.named_buffers()).keys() == statistics
    assert set(model.state_dict()) == dict(model.named_parameters()).keys() | statistics
