"""What classifiers take from a backbone, and the necks that pool it."""

import pytest
import tiny_backbones
import torch
import torch.nn.functional as F

from mmvitbackbones import NormAndPool, ProjectAndPool


def stages_by_hand(model, x):
    """The tuples that the stages hand on, without output norms."""
    state, states = model.stem(x), []
    for stage in model.stages:
        state = stage(*state)
        states.append(state)
    return states


@pytest.mark.parametrize('out_indices', [(3,), (1, 2)])
def test_regional_tokens(out_indices):
    options = dict(outputs='regional', out_norm=None, out_indices=out_indices)
    model = tiny_backbones.build('RegionViT', **options).eval()
    x = tiny_backbones.image(50, 77, batch=2)
    maps = model(x)
    # Regions of 12 x 12 pixels; their grid is halved by each stage but the first.
    grids = [(5, 7), (3, 4), (2, 2), (1, 1)]
    states = stages_by_hand(model, x)
    for i, found in zip(out_indices, maps):
        assert found.shape == (2, (16, 16, 32, 32)[i], *grids[i])
        torch.testing.assert_close(found, states[i][1].movedim(-1, 1))


@pytest.mark.parametrize('tokens', [(1, 2, 1, 2), (1, 1, 1, 0)])
@pytest.mark.parametrize('attention', ['vil', 'full'])
def test_all_tokens(attention, tokens):
    options = dict(attention=attention, num_global_tokens=tokens, out_norm=None)
    whole = tiny_backbones.build('VisionLongformer', outputs='all', out_indices=(1, 3), **options)
    local = tiny_backbones.build('VisionLongformer', outputs='local', **options)
    kept = local.state_dict()
    local.load_state_dict({n: t for n, t in whole.state_dict().items() if n in kept})
    x = tiny_backbones.image(50, 77, batch=2)
    maps = local.eval()(x)
    for i, found in zip((1, 3), whole.eval()(x)):
        assert found.shape == (2, maps[i].shape[1], tokens[i] + maps[i].shape[2:].numel())
        torch.testing.assert_close(found[:, :, tokens[i] :], maps[i].flatten(2))
    # The global tokens of the last stage, by its blocks one by one.
    stage = whole.stages[3]
    x = stage.downsample(stages_by_hand(whole, x)[2][0])
    state = (x, *stage._global_tokens(2))
    for block in stage.blocks:
        state = block(*state)
    expected = state[1].transpose(1, 2) if tokens[3] else found[:, :, :0]
    torch.testing.assert_close(found[:, :, : tokens[3]], expected)


@pytest.mark.parametrize(
    'family, options, words',
    [
        ('RegionViT', dict(outputs='all'), "outputs must be one of 'local', 'regional'"),
        ('RegionViT', dict(outputs='regional'), "out_norm other than 'inline'"),
        (
            'RegionViT',
            dict(outputs='regional', out_norm=None, arch=dict(base='tiny', regional=False)),
            'an arch with regional tokens',
        ),
        ('VisionLongformer', dict(outputs='all', out_norm='inline'), "other than 'inline'"),
        ('VisionLongformer', dict(outputs='global'), "outputs must be one of 'local', 'all'"),
    ],
)
def test_bad_outputs(family, options, words):
    with pytest.raises(ValueError, match=words):
        tiny_backbones.build(family, **options)


@pytest.mark.parametrize('shape', [(2, 6, 3, 4), (2, 6, 13)])
def test_norm_and_pool(shape):
    maps = [torch.zeros(1), torch.randn(shape, dtype=torch.float64)]
    necks = [
        tiny_backbones.randomise(NormAndPool(6, eps=0.1, pool=pool).double())
        for pool in ('mean', 'first')
    ]
    if len(shape) == 4:  # of a map no token is global
        with pytest.raises(ValueError, match="set outputs='all' and num_global_tokens=1"):
            necks.pop()(maps)
    for neck, pool in zip(necks, ('mean', 'first')):
        expected = torch.zeros(2, 6, dtype=torch.float64)
        for b in range(2):
            rows = []
            for token in maps[1][b].flatten(1).T:
                x = (token - token.mean()) / (token.var(unbiased=False) + 0.1).sqrt()
                rows.append(x * neck.norm.weight + neck.norm.bias)
            expected[b] = sum(rows) / len(rows) if pool == 'mean' else rows[0]
        (found,) = neck(maps)
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="pool must be one of 'mean', 'first'"):
        NormAndPool(6, pool='max')


def test_project_and_pool():
    assert ProjectAndPool(512).proj.weight.std().item() == pytest.approx(0.02, rel=0.02)
    neck = tiny_backbones.randomise(ProjectAndPool(6, 5).double()).eval()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    (found,) = neck([x])
    total = torch.zeros(2, 5, dtype=torch.float64)
    for row in range(3):
        for column in range(4):
            y = x[:, :, row, column] @ neck.proj.weight.T + neck.proj.bias
            y = (y - neck.norm.running_mean) / (neck.norm.running_var + 1e-5).sqrt()
            total += F.silu(y * neck.norm.weight + neck.norm.bias)
    torch.testing.assert_close(found, total / 12)


@pytest.mark.parametrize(
    'family, options, neck',
    [
        ('RegionViT', dict(outputs='regional', out_norm=None), NormAndPool(32)),
        ('FocalTransformer', dict(out_norm=None), NormAndPool(16)),
        ('RMT', dict(out_norm=None), ProjectAndPool(16, 8)),
        ('VisionLongformer', dict(out_norm=None), NormAndPool(16)),
        (
            'VisionLongformer',
            dict(outputs='all', out_norm=None, num_global_tokens=1),
            NormAndPool(16, pool='first'),
        ),
    ],
)
def test_all_of_a_classifier_learns(family, options, neck):
    """Distributed training refuses parameters that get no gradient."""
    backbone = tiny_backbones.build(family, out_indices=(3,), **options)
    model = torch.nn.Sequential(backbone, neck.double())
    (x,) = model(tiny_backbones.image(64, 96, batch=2))
    x.square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
