"""Published Focal Transformer weights: tables and pooling of windows, and of other windows."""

import copy

import pytest
import torch
import torch.nn.functional as F
from published_files import FOCAL_TRANSFORMER, bilinear, places, published_bias, same
from published_files.focal_transformer import COARSE, FOCALS, OWN, SURROUNDINGS, WIDE
from tiny_backbones import image

from mmvitbackbones.checkpoints import load_published
from mmvitbackbones.checkpoints.focal_transformer import resize_pooling

POOLING = 'layers.0.blocks.0.pool_layers.0.weight'


def loaded(state=None, **options):
    """A model with a file's weights."""
    model = FOCAL_TRANSFORMER.build(**options)
    load_published(model, FOCAL_TRANSFORMER.state() if state is None else state)
    return model


def attentions(model):
    """Each block's attention with its published name."""
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage.blocks):
            yield f'layers.{i}.blocks.{j}.attn', block.attn


def bias_of(table, window, keys):
    """Row qy - ky + s - 1 of a table."""
    return published_bias(table, places(window), places(keys), keys - 1)


@pytest.mark.parametrize('expand', [0, 2])
@pytest.mark.parametrize('window, focals', [(7, FOCALS), (4, (4, 1, 6, 3)), (5, (7, 5, 3, 1))])
def test_tables_give_the_published_biases(window, focals, expand):
    options = dict(window_size=window, focal_windows=focals, expand_sizes=[expand] * 4)
    state = FOCAL_TRANSFORMER.state(**options)
    for name, attn in attentions(loaded(state, **options)):
        expected = bias_of(state[f'{name}.{OWN}'].t(), window, window)
        assert torch.equal(attn.bias(), expected)
        expected = bias_of(state[f'{name}.{COARSE}'], window, attn.focal_window)
        assert torch.equal(attn.coarse_bias(), expected)
        if expand:
            assert torch.equal(attn.surroundings.table, state[f'{name}.{SURROUNDINGS}'][0])


# Other windows.

OTHER_WINDOWS = {
    'wide': dict(focal_windows=WIDE),
    'narrow': dict(focal_windows=(5, 2, 1, 1)),
    'large': dict(window_size=14),
    'large and wide': dict(window_size=14, focal_windows=WIDE),
    'small': dict(window_size=5, expand_sizes=(2, 2, 2, 0)),
    'by stage': dict(window_size=(14, 9, 7, 4)),
}


@pytest.mark.parametrize('options', OTHER_WINDOWS.values(), ids=OTHER_WINDOWS)
def test_tables_of_other_windows(options):
    """Resized in the published layout, and read as published."""
    state = FOCAL_TRANSFORMER.state()
    for name, attn in attentions(loaded(state, **options)):
        for found, table, keys in (
            (attn.bias(), state[f'{name}.{OWN}'].t(), attn.window),
            (attn.coarse_bias(), state[f'{name}.{COARSE}'], attn.focal_window),
        ):
            expected = bias_of(bilinear(table, attn.window + keys - 1), attn.window, keys)
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


def sloping(offset_y, offset_x, side):
    """A function of the offset, relative to the window, that is no mirror image of another."""
    y, x = offset_y / side, offset_x / side
    return 1 + 2 * y - 5 * x + 7 * x * y


def sloping_table(side):
    """In the published layout, where the middle is the offset 0 and rows run from key to query."""
    offset = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return sloping(-offset[:, None], -offset, side).flatten()


@pytest.mark.parametrize('options', OTHER_WINDOWS.values(), ids=OTHER_WINDOWS)
def test_resized_tables_keep_their_meaning(options):
    """A bias that slopes with the offset, relative to the window, still slopes so."""
    state = FOCAL_TRANSFORMER.state()
    for name, tensor in state.items():
        if name.endswith(OWN):
            tensor[:] = sloping_table(13)[:, None]
        elif name.endswith(COARSE):
            tensor[:] = sloping_table(round(tensor.shape[1] ** 0.5))
    for name, attn in attentions(loaded(state, **options)):
        coarse_before = round(state[f'{name}.{COARSE}'].shape[1] ** 0.5)
        for found, keys, before in (
            (attn.bias(), attn.window, 13),
            (attn.coarse_bias(), attn.focal_window, coarse_before),
        ):
            side = attn.window + keys - 1
            queries = torch.arange(attn.window, dtype=torch.float64) - (attn.window - 1) / 2
            offset = torch.arange(keys) - (keys - 1) / 2 - queries[:, None]
            y, x = offset[:, None, :, None], offset[None, :, None, :]
            expected = sloping(y, x, side).expand(attn.window, attn.window, keys, keys)
            # The interpolation repeats the border's values beyond it.
            inside = torch.maximum(y.abs(), x.abs()) / side <= 0.5 - 0.5 / before
            inside = inside.expand_as(expected)
            assert inside.double().mean() > 0.7
            found = found[0].double().view_as(expected)
            torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=2e-6)


@pytest.mark.parametrize('window', [14, 5, 3, 28])
@pytest.mark.parametrize('total', [1.0, -3.0, 0.0])
def test_pooling_keeps_its_sum(window, total):
    """A map that is the same everywhere is pooled to the same token as before."""
    torch.manual_seed(0)
    weight = torch.randn(1, 49, dtype=torch.float64)
    weight += (total - weight.sum()) / 49
    state = {**FOCAL_TRANSFORMER.state(), POOLING: weight.float()}
    pool = loaded(state, window_size=window, expand_sizes=0).stages[0].blocks[0].attn.pool
    assert pool.weight.shape == (window, window)
    with torch.no_grad():
        token = pool(torch.ones(1, 2 * window, window, 3)) - pool.bias
    assert token.shape == (1, 2, 1, 3)
    assert (token - total).abs().max() < 3e-6
    exact = resize_pooling(weight.view(7, 7), (window, window)).sum()
    assert abs(exact - total) < 1e-13


@pytest.mark.parametrize('window', [14, 5])
def test_resized_pooling_keeps_its_shape(window):
    """Weights that slope across the window, not mirrored or transposed."""
    y, x = (torch.arange(7.0) - 3)[:, None] / 7, (torch.arange(7.0) - 3) / 7
    weight = (1 + y - 3 * x + 2 * x * y).view(1, 49) / 49
    state = {**FOCAL_TRANSFORMER.state(), POOLING: weight}
    pool = loaded(state, window_size=window, expand_sizes=0).stages[0].blocks[0].attn.pool
    side = (torch.arange(window) - (window - 1) / 2) / window
    y, x = side[:, None], side
    expected = (1 + y - 3 * x + 2 * x * y) / window**2
    inside = side.abs() <= 3 / 7  # beyond, the interpolation repeats the border's values
    assert (pool.weight - expected)[inside][:, inside].abs().max() < 1e-6


# What the paper switches off.

ABLATIONS = {  # of Fig. 5 and Table 7
    'window only': dict(expand_sizes=0, focal_windows=0),
    'local': dict(focal_windows=0),
    'global': dict(expand_sizes=0),
    'window of 14': dict(window_size=14),
}


@pytest.mark.parametrize('options', ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_train_from_published_weights(options):
    """Every parameter that is left, and a step down the slope lowers the loss."""
    model = FOCAL_TRANSFORMER.build(out_norm='output', **options)
    report = load_published(model, FOCAL_TRANSFORMER.state())
    assert {*report.loaded, *report.new} == model.state_dict().keys()
    x = image(70, 93, batch=2, dtype=torch.float32, seed=0)

    def loss():
        return sum((m - m.roll(1, 3)).square().mean() for m in model(x))

    before = loss()
    before.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    slope = sum(grad.square().sum() for grad in grads.values())
    assert slope > 0
    torch.optim.SGD(model.parameters(), lr=float(1e-3 * before / slope)).step()
    with torch.no_grad():
        # The slope foretells 0.1 %.
        assert 0.998 < loss() / before < 0.9995


def test_a_base_of_other_depths_refuses_its_own_file():
    """Of Table 9."""
    arch = dict(base='tiny', depths=(2, 2, 4, 2))
    model = FOCAL_TRANSFORMER.shapes_only_model(arch=arch)
    words = 'depths 2, 2, 6, 2 and .*; the model has depths 2, 2, 4, 2 and .* Set arch'
    with pytest.raises(ValueError, match=words):
        load_published(model, FOCAL_TRANSFORMER.shapes_only(arch='tiny'))


# Without a file.


def test_start_of_training():
    """Coarse tokens are means, biases small."""
    model = FOCAL_TRANSFORMER.build(seed=0)
    state = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert same(model.state_dict(), state)
    x = torch.randn(2, 14, 21, 8)
    mean = F.avg_pool2d(x.permute(0, 3, 1, 2), 7).permute(0, 2, 3, 1)
    for _, attn in attentions(model):
        torch.testing.assert_close(attn.pool(x), mean, rtol=0, atol=1e-6)
    tables = [tensor.flatten() for name, tensor in state.items() if name.endswith('.table')]
    assert len(tables) == 5 + 5 + 4
    for table in tables:
        assert 0.01 < table.std() < 0.03 and table.abs().max() < 0.12
        assert abs(table.mean()) < 0.01
