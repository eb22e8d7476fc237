"""Exported programs and ONNX files of backbones give what the backbones give, at all sizes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tiny_backbones
import torch
from mmengine.registry import MODELS
from tiny_backbones import OPTIONS, image
from torch import nn

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

import onnx

from mmvitbackbones.deploy import OutputModel, export_program, least_side, load_runner, write_onnx

# What differs in the way it treats sizes; the tiny models have windows of 2 to 4 and all forms of
# attention.
VARIANTS = {
    'windows of 14': ('RegionViT', dict(window_size=14)),
    'regional tokens': (
        'RegionViT',
        dict(
            arch=dict(OPTIONS['RegionViT']['arch'], stem='1-conv'),
            outputs='regional',
            out_norm=None,
        ),
    ),
    'no regional tokens': (
        'RegionViT',
        dict(arch=dict(OPTIONS['RegionViT']['arch'], regional=False), peg=True),
    ),
    'focal windows of detectors': (
        'FocalTransformer',
        dict(window_size=7, expand_sizes=3, focal_windows=(15, 13, 9, 7)),
    ),
    'overlapping patches': ('FocalTransformer', dict(use_conv_embed=True, peg=True)),
    'absolute positions': (
        'VisionLongformer',
        dict(position='ape', attention='vil', outputs='all', pretrain_img_size=1200),
    ),
    'own chunks': ('VisionLongformer', dict(position='ape', attention='full', shift_mode=-1)),
    'windows of 15': ('VisionLongformer', dict(window_size=15, shift_mode=1)),
    'decay that multiplies': ('RMT', dict(decay='product')),
}
# The sizes of the papers' small models, with detection's windows.
SMALL = dict(
    RegionViT=dict(arch='small'),
    FocalTransformer=dict(arch='tiny', focal_windows=(15, 13, 9, 7)),
    RMT=dict(arch='small'),
    VisionLongformer=dict(arch='small'),
)
sweep = pytest.mark.sweep


def build(family, **options):
    return OutputModel(tiny_backbones.build(family, dtype=torch.float32, **options))


def differ(run, model, *size, batch=1):
    """The largest difference over the standard deviation of each map."""
    images = image(*size, batch=batch, dtype=torch.float32)
    with torch.no_grad():
        expected = model(images)
    found = run(images.numpy())
    assert [one.shape for one in found] == [tuple(other.shape) for other in expected]
    return max(
        ((torch.from_numpy(one) - other).abs().max() / other.std()).item()
        for one, other in zip(found, expected, strict=True)
    )


def runner(program):
    """As of a file, from a program."""
    module = program.module()

    def run(images):
        with torch.no_grad():
            return [y.numpy() for y in module(torch.from_numpy(images))]

    return run


def onnx_runner(program, model, folder, **options):
    """Of an ONNX file whose operators are all of the standard."""
    path = str(folder / 'model.onnx')
    maps = len(model(image(64, 64, dtype=torch.float32)))
    write_onnx(program, path, [f'map_{i}' for i in range(maps)], {}, **options)
    graph = onnx.load(path)
    assert {node.domain for node in graph.graph.node} == {''}
    assert [(each.domain, each.version) for each in graph.opset_import] == [
        ('', options.get('opset', 20))
    ]
    return load_runner(path)


ONE_STAGE = [pytest.param(family, dict(out_indices=[0])) for family in OPTIONS]
FOUR_STAGES = [pytest.param(family, {}, marks=sweep) for family in OPTIONS]
OTHERS = [pytest.param(*VARIANTS[name], marks=sweep, id=name) for name in VARIANTS]


@pytest.mark.parametrize('family, options', [*ONE_STAGE, *FOUR_STAGES, *OTHERS])
def test_all_sizes(family, options, tmp_path):
    """One program for every number of images, height and width; ONNX runs it, too."""
    model = build(family, **options)
    program = export_program(model, None)
    least = least_side(model.model)
    sizes = (least, least), (least + 128, least + 32), (least + 96, least + 480), (2048, least)
    run = runner(program)
    for size, batch in itertools.product(sizes, (1, 3)):
        assert differ(run, model, *size, batch=batch) < 5e-5
    run = onnx_runner(program, model, tmp_path)
    for size, batch in zip(sizes, (1, 3, 1)):
        assert differ(run, model, *size, batch=batch) < 1e-4


@sweep
@pytest.mark.parametrize('family', SMALL)
def test_all_sizes_of_small_models(family, tmp_path):
    torch.manual_seed(0)
    model = OutputModel(MODELS.build(dict(type=family, **SMALL[family])))
    program = export_program(model, None)
    sizes = (256, 256), (480, 544), (320, 736), (800, 1344)
    run = runner(program)
    assert max(differ(run, model, *size) for size in sizes) < 1e-4
    assert differ(run, model, 256, 320, batch=3) < 1e-4
    run = onnx_runner(program, model, tmp_path)
    assert max(differ(run, model, *size) for size in sizes) < 1e-4
    assert differ(run, model, 256, 320, batch=3) < 1e-4


@sweep
@pytest.mark.parametrize('size', [(333, 500), (224, 224), (64, 96)], ids=str)
@pytest.mark.parametrize('family', OPTIONS)
def test_one_size(family, size, tmp_path):
    """Any size; every number of images."""
    model = build(family)
    program = export_program(model, size)
    run = runner(program)
    assert max(differ(run, model, *size, batch=batch) for batch in (1, 2, 5)) < 5e-5
    run = onnx_runner(program, model, tmp_path, opset=18)
    assert max(differ(run, model, *size, batch=batch) for batch in (1, 3)) < 1e-4


@pytest.mark.parametrize(
    'family', [f if f == 'RMT' else pytest.param(f, marks=sweep) for f in OPTIONS]
)
def test_float16(family, tmp_path):
    """A file that computes in float16 takes and gives float32."""
    exact = build(family, out_indices=[1])
    half = OutputModel(
        tiny_backbones.build(family, dtype=torch.float32, out_indices=[1]), dtype=torch.float16
    )
    run = onnx_runner(export_program(half, (64, 96)), exact, tmp_path)
    assert 1e-5 < differ(run, exact, 64, 96) < 0.05


def test_windows_that_are_too_wide_for_all_sizes():
    with pytest.raises(ValueError, match='windows of 70 tokens .* --size'):
        export_program(build('RegionViT', window_size=70), None)


def test_published_padding_is_for_one_size():
    model = build('RegionViT', regional_padding='published')
    with pytest.raises(ValueError, match='--size'):
        export_program(model, None)
    run = runner(export_program(model, (101, 96)))
    assert differ(run, model, 101, 96) < 5e-5


@pytest.mark.parametrize('bins', [1, 3, (2, 6)])
def test_pooling_in_bins(bins):
    """As torch's adaptive pooling, of sizes that the bins do and do not divide."""
    from mmvitbackbones.deploy.sizes import BinPool

    layer = nn.AdaptiveAvgPool2d(bins)
    for size in ((6, 6), (7, 11), (8, 13), (2, 5)):
        x = image(*size, batch=2)
        torch.testing.assert_close(BinPool(layer)(x), layer(x))


def test_an_output_that_is_wrong_is_seen():
    """The comparison of a file with its model, on which tools/export.py relies."""
    from mmvitbackbones.deploy import compare

    model, images = build('RMT', out_indices=[0, 1]), image(64, 64, dtype=torch.float32)

    def difference(change):
        def run(images):
            with torch.no_grad():
                maps = [y.numpy() for y in model(torch.from_numpy(images))]
            maps[1][0, 0, 0, 0] += change * maps[1].std()
            return maps

        return compare(run, model, images).difference

    assert difference(0) == 0
    assert difference(5) == pytest.approx(5, abs=0.01)
    assert np.isnan(difference(np.nan))


def test_a_constant_output_may_be_right():
    from mmvitbackbones.deploy import compare

    def model(images):
        return (torch.full((1, 1), 3.0),)

    images = torch.zeros(1)
    for value, wanted in ((3, 0), (6, 1)):
        found = compare(lambda _, v=value: [np.full((1, 1), v, np.float32)], model, images)
        assert found.difference == wanted
