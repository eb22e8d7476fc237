"""Published ViL weights: tables, attention of both kinds, positions and global tokens."""

import copy
import math

import pytest
import torch
from golden_cases import GoldenCase
from published_files import VISION_LONGFORMER, bilinear, places, published_bias, same
from published_files.vision_longformer import APE, ARCH, FULL, RESIZED, TABLE, TOKENS
from tiny_backbones import image

from mmvitbackbones.checkpoints import load_published, vision_longformer
from mmvitbackbones.ops.tables import bias_from


def outputs(model, height=64, width=64):
    """In float64, for an image."""
    with torch.no_grad():
        return copy.deepcopy(model).double().eval()(image(height, width, seed=2))


def assert_same_maps(found, wanted, tolerance=1e-10):
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * b.std().item())


def loaded(state, **options):
    """A model with a file's weights, none of them resized or new."""
    model = VISION_LONGFORMER.build(**options)
    report = load_published(model, state)
    assert not report.resized and not report.new
    return model


# Tables.


@pytest.mark.parametrize('window', [7, 2, 3])
def test_tables_give_the_published_biases(window):
    """Row qy - ky + 2w - 1, the chunk of the queries in the middle of its neighbours."""
    state = VISION_LONGFORMER.state(window_size=window)
    queries, keys = places(window), places(3 * window, -window)
    for i, stage in enumerate(loaded(state, window_size=window).stages):
        for j, block in enumerate(stage.blocks):
            table = state[f'layer{i + 1}.{2 * j + 1}.attn.{TABLE}'].t()
            wanted = published_bias(table, queries, keys, 2 * window - 1)
            assert torch.equal(block.attn.bias(), wanted)


def test_tables_of_full_attention_give_the_published_biases():
    state = VISION_LONGFORMER.state(**FULL)
    model = loaded(state, **FULL)
    for i, side in enumerate((16, 8, 4, 2)):
        table = state[f'layer{i + 1}.1.attn.{TABLE}'].t()
        offsets = model.stages[i].blocks[0].attn.bias((side, side))
        found = bias_from(offsets, slice(0, side**2))
        assert torch.equal(found, published_bias(table, places(side), places(side), side - 1))


@pytest.mark.parametrize('options, parts, stages', RESIZED.values(), ids=RESIZED)
def test_tables_are_resized_bilinearly(options, parts, stages):
    """In the published layout."""
    state, model = VISION_LONGFORMER.state(**options), VISION_LONGFORMER.build(**options | parts)
    load_published(model, state)
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage.blocks):
            found = block.attn.bias.table
            table = state[f'layer{i + 1}.{2 * j + 1}.attn.{TABLE}'].t()
            wanted = bilinear(table, round(found.shape[1] ** 0.5)).flip(1)
            assert (found.shape == table.shape) == (str(i) not in stages)
            torch.testing.assert_close(found.double(), wanted, rtol=0, atol=5e-6)


def test_a_table_that_fits_again_is_not_resized():
    """Back in the model that the file is of."""
    saved = VISION_LONGFORMER.trained(window_size=3)
    larger, back = (VISION_LONGFORMER.build(window_size=window) for window in (14, 3))
    assert load_published(larger, saved.state_dict()).resized
    report = load_published(back, larger.state_dict())
    assert len(report.resized) == sum(ARCH['depths'])
    report = load_published(back, saved.state_dict())
    assert not report.resized and same(back.state_dict(), saved.state_dict())


# Full attention and local attention.


@pytest.mark.parametrize('name', ['vil_tiny_full', 'vil_tiny_full_rpb'])
def test_full_attention_of_two_windows_in_local_attention(name):
    """Where a map is two chunks high and wide all see all: the published outputs stay."""
    case = GoldenCase(name)
    options = {**VISION_LONGFORMER.of_case(case), 'attention': 'vil', 'window_size': (8, 4, 2, 1)}
    model = loaded(case.weights(), **options)
    with torch.no_grad():
        case.check(model.double().eval()(case.image()), 1e-9)


@pytest.mark.parametrize('position', [{}, APE], ids=['rpb', 'ape'])
@pytest.mark.parametrize('tokens', [TOKENS, (2, 1, 0, 1)])
def test_local_attention_of_two_windows_in_full_attention(tokens, position):
    options, state = dict(position, num_global_tokens=tokens), {}
    for i, window in enumerate((8, 4, 2, 1)):
        of_window = VISION_LONGFORMER.state(window_size=window, **options)
        state.update((n, t) for n, t in of_window.items() if n.startswith(f'layer{i + 1}.'))
    local, full = (
        outputs(loaded(state, attention=attention, window_size=(8, 4, 2, 1), **options))
        for attention in ('vil', 'full')
    )
    assert_same_maps(local, full)


# Absolute positions.


@pytest.mark.parametrize('img', [224, 448, 100, 32, 60])
def test_absolute_positions_of_other_image_sizes(img):
    """Interpolated between the centres of the file's places, borders repeated."""
    state, model = (
        VISION_LONGFORMER.state(**APE),
        VISION_LONGFORMER.build(pretrain_img_size=img, **APE),
    )
    report = load_published(model, state)
    wanted, found, side = VISION_LONGFORMER.ours(state, **APE), model.state_dict(), img
    assert found.keys() == wanted.keys()
    for i, before in enumerate((16, 8, 4, 2)):
        side = math.ceil(side / ARCH['patches'][i])
        for name in (f'stages.{i}.position.rows', f'stages.{i}.position.columns'):
            table = wanted.pop(name)
            assert found[name].shape == (side, len(table[0]))
            assert (name in report.resized) == (side != before)
            for place, value in enumerate(found[name]):
                at = min(max((place + 0.5) * before / side - 0.5, 0), before - 1)
                low, share = int(at), at - int(at)
                between = table[low] * (1 - share) + table[min(low + 1, before - 1)] * share
                torch.testing.assert_close(value, between, rtol=0, atol=1e-6)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert not report.new


# Global tokens.


def test_twins_of_global_tokens_are_not_needed():
    """As in a file from which they were left out."""
    model, tied = VISION_LONGFORMER.build(), VISION_LONGFORMER.layout().tied
    report = load_published(model, VISION_LONGFORMER.without(*tied))
    assert tied and not report.tied
    assert same(model.state_dict(), VISION_LONGFORMER.ours())


@pytest.fixture
def exact_copies(monkeypatch):
    monkeypatch.setattr(vision_longformer, '_NOISE', 0.0)


@pytest.mark.parametrize('tokens', [(4, 3, 2, 0), (5, 2, 7, 0)])
def test_copies_of_global_tokens_change_no_output(tokens, exact_copies):
    """The published outputs of a file with 2, 1, 1 and none."""
    case = GoldenCase('vil_tiny_window5')
    options = {**VISION_LONGFORMER.of_case(case), 'num_global_tokens': tokens}
    model = VISION_LONGFORMER.build(**options)
    report = load_published(model, case.weights())
    assert report.resized and not report.new
    with torch.no_grad():
        case.check(model.double().eval()(case.image()), 1e-6)


@pytest.mark.parametrize('attention', ['vil', 'full'])
@pytest.mark.parametrize('tokens', [(4, 3, 3, 5), (5, 6, 3, 2), (2, 7, 3, 2)])
def test_copies_of_our_own_global_tokens_change_no_output(tokens, attention, exact_copies):
    """In float64 to the last digits: as often one each, as not."""
    few = (2, 3, 1, 2)
    saved = VISION_LONGFORMER.trained(num_global_tokens=few, attention=attention).double()
    model = VISION_LONGFORMER.build(num_global_tokens=tokens, attention=attention).double()
    report = load_published(model, saved.state_dict())
    more = {i for i in range(4) if tokens[i] > few[i]}
    assert {int(name.split('.')[1]) for name in report.resized} == more
    assert_same_maps(outputs(model, 61, 90), outputs(saved, 61, 90), 1e-12)


@pytest.mark.parametrize('position', [{}, APE], ids=['rpb', 'ape'])
@pytest.mark.parametrize('file, tokens', [(1, 2), (1, 3), (2, 3), (2, 5), (3, 4)])
def test_more_global_tokens(file, tokens, position):
    """Copies in turn, moved a little; as keys each counts as a share of one."""
    options = dict(position, num_global_tokens=[file] * 4)
    state = VISION_LONGFORMER.state(**options)
    model = VISION_LONGFORMER.build(num_global_tokens=tokens, **position)
    report = load_published(model, state)
    first = copy.deepcopy(model.state_dict())
    load_published(model, state)
    assert same(model.state_dict(), first)  # what was there before plays no part
    wanted = {}
    copied = [token % file for token in range(tokens)]
    log_count = torch.tensor([math.log(copied.count(token)) for token in copied])
    for name, tensor in VISION_LONGFORMER.ours(state, **options).items():
        leaf = name.rpartition('.')[2]
        if leaf == 'global_tokens':
            tensor = torch.stack([tensor[token] for token in copied])
            moved = model.state_dict()[name][file:] - tensor[file:]
            assert 0.005 < moved.std() < 0.04
            tensor[file:] += moved
        elif leaf == 'global_position':
            tensor = torch.stack([tensor[token] for token in copied])
        elif leaf == 'global_to_local':
            tensor = torch.stack([tensor[:, token] for token in copied], 1)
        elif leaf == 'local_to_global':
            tensor = torch.stack([tensor[:, token] for token in copied], 1) - log_count
        elif leaf == 'global_to_global':
            rows = torch.stack([tensor[:, token] for token in copied], 1)
            tensor = torch.stack([rows[:, :, token] for token in copied], 2) - log_count
        wanted[name] = tensor
    found = model.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert (name in report.resized) == ('global' in name)
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=1e-6)
    for stage in model.stages:
        assert len(stage.global_tokens.unique(dim=0)) == tokens
    assert not report.new
