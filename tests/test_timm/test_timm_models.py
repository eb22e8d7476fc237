"""What timm asks of a model, of a tiny one of each family, and of every published size."""

import pytest

pytest.importorskip('timm')

import timm
import tiny_backbones
import torch
from published_files.layout import WithoutValues
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from timm_models import NAMES, build, image

from mmvitbackbones import get_config
from mmvitbackbones.timm import SIZES

every_family = pytest.mark.parametrize('family', NAMES)


@pytest.mark.parametrize('name', SIZES)
def test_every_size_is_as_its_cfg_says(name):
    """As timm's own tests check each of its models, without values."""
    assert name in timm.list_models()
    with torch.device('meta'), WithoutValues():
        model = timm.create_model(name)
    cfg = model.pretrained_cfg
    state = model.state_dict()
    for conv in cfg['first_conv']:
        assert state[f'{conv}.weight'].shape[1] == 3
    readers = [n for n, t in state.items() if '.stem.' in n and t.dim() == 4 and t.shape[1] == 3]
    assert {f'{conv}.weight' for conv in cfg['first_conv']} == set(readers)
    assert state[f'{cfg["classifier"]}.weight'].shape == (1000, model.head_hidden_size)
    assert [info['num_chs'] for info in model.feature_info] == list(model.backbone.channels)
    assert model.feature_info[-1]['reduction'] == 32
    for info in model.feature_info:
        model.get_submodule(info['module'])


@pytest.mark.parametrize(
    'name',
    [pytest.param(n, marks=() if n in NAMES.values() else pytest.mark.sweep) for n in SIZES],
)
def test_every_size_classifies(name):
    with torch.device('meta'), WithoutValues():
        model = timm.create_model(name).eval()
    cfg = model.pretrained_cfg
    x = model.forward_features(torch.empty(1, *cfg['input_size'], device='meta'))
    assert x.shape == (1, model.num_features, *cfg['pool_size'])
    assert model.forward_head(x).shape == (1, 1000)


@every_family
def test_classifier_trains(family):
    model, x = build(family, num_classes=5), image()
    logits = model(x)
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert not without
    model.eval()
    with torch.no_grad():
        features = model.forward_features(x)
        pooled = model.forward_head(features, pre_logits=True)
        torch.testing.assert_close(model.get_classifier()(pooled), model(x))
        torch.testing.assert_close(pooled, features.mean((2, 3)))
    assert pooled.shape == (2, model.head_hidden_size)


@every_family
def test_reset_classifier(family):
    model, x = build(family).eval(), image()
    with torch.no_grad():
        features = model.forward_features(x)
        model.reset_classifier(7)
        assert model(x).shape == (2, 7) and model.num_classes == 7
        model.reset_classifier(0)
        assert torch.equal(model(x), model.forward_head(features, pre_logits=True))
        model.reset_classifier(0, '')
        assert torch.equal(model(x), features)
        model.reset_classifier(3, 'max')
        expected = model.get_classifier()(features.amax((2, 3)))
        torch.testing.assert_close(model(x), expected)
        other = build(family, num_classes=0, global_pool='').eval()
        other.load_state_dict({n: t for n, t in model.state_dict().items() if 'head' not in n})
        assert torch.equal(other(x), features)


@every_family
def test_dropout_is_before_the_last_layer(family):
    model = build(family, drop_rate=0.5)
    features = torch.ones(1, model.num_features, 2, 2)
    kept = model.forward_head(features, pre_logits=True)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(model.eval().forward_head(features, pre_logits=True), torch.ones_like(kept))


@every_family
@pytest.mark.parametrize('out_norm', [None, 'output', 'inline'])
def test_maps_are_the_backbones(family, out_norm):
    """As mmengine builds it: all of them, some, and with ``features_only``."""
    model, x = build(family, out_norm=out_norm).eval(), image(75, 90)
    backbone = tiny_backbones.build(family, dtype=torch.float32, out_norm=out_norm).eval()
    backbone.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        expected = backbone(x)
        final, maps = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        assert all(map(torch.equal, maps, expected)) and len(maps) == len(expected)
        some = model.forward_intermediates(x, [0, -2], intermediates_only=True)
        assert all(map(torch.equal, some, [expected[0], expected[2]])) and len(some) == 2
        last = model.forward_intermediates(x, 1, intermediates_only=True)
        assert len(last) == 1 and torch.equal(last[0], expected[-1])
        features = build(family, out_norm=out_norm, features_only=True, out_indices=(1, 2)).eval()
        published = model.backbone.state_dict()
        features.model.backbone.load_state_dict(
            {n: t for n, t in published.items() if n in features.model.backbone.state_dict()}
        )
        found = features(x)
        assert all(map(torch.equal, found, expected[1:3])) and len(found) == 2
    assert features.feature_info.channels() == list(backbone.channels[1:3])
    assert features.feature_info.reduction() == list(backbone.strides[1:3])


@every_family
def test_what_maps_need_not_is_not_trained(family):
    features = build(family, out_norm='output', features_only=True, out_indices=(0, 2))
    sum(m.square().mean() for m in features(image())).backward()
    for name, parameter in features.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad or '.stages.3.' in name, name
    names = dict(features.named_parameters())
    assert any('.out_norms.2.' in n for n in names) and not any('.out_norms.1.' in n for n in names)


@every_family
def test_learning_rates_rise_with_the_layers(family):
    model = build(family, out_norm='output')
    blocks = [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0)]
    for coarse, after in ((True, {0: 1, 1: 2, 2: 3, 3: 4}), (False, {(0, 0): 1})):
        layers = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert layers.keys() == {name for name, _ in model.named_parameters()}
        assert {n for n, layer in layers.items() if layer == 0} == {
            name for name in layers if name.startswith('backbone.stem.')
        }
        for number, (i, j) in enumerate(blocks):
            layer = layers[f'backbone.stages.{i}.blocks.{j}.norm1.weight']
            assert layer == (after[i] if coarse else number + 1)
        assert layers['head.fc.weight'] == (5 if coarse else 6)
    assert all(layers[n] == 5 for n in layers if n.startswith(('neck.', 'backbone.out_norms.')))
    first_of_stages = {n: layer for n, layer in layers.items() if '.stages.1.downsample.' in n}
    assert set(first_of_stages.values()) == {2}
    optimizer = create_optimizer_v2(model, opt='adamw', lr=1.0, layer_decay=0.5)
    groups = [(p, group) for group in optimizer.param_groups for p in group['params']]
    rates = {id(p): group['lr'] * group.get('lr_scale', 1) for p, group in groups}
    assert {name: rates[id(p)] for name, p in model.named_parameters()} == {
        name: 0.5 ** (6 - layer) for name, layer in layers.items()
    }


@every_family
def test_positions_and_global_tokens_do_not_decay(family):
    model = build(family)
    tables = model.no_weight_decay()
    assert tables <= {name for name, _ in model.named_parameters()}
    assert bool(tables) == (family != 'RMT')
    if family == 'VisionLongformer':  # as its own recipe says
        options = get_config('cls_vil_t_in1k').optim_wrapper.paramwise_cfg.custom_keys
        kept = [key for key, values in options.items() if values.get('decay_mult') == 0]
        names = {name for name, _ in model.named_parameters()}
        assert {n for n in names if any(key in n for key in kept)} <= tables
    optimizer = create_optimizer_v2(model, opt='adamw', lr=1.0, weight_decay=0.1)
    decays = {id(p): g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    for name, parameter in model.named_parameters():
        if name in tables or parameter.dim() == 1:
            assert decays[id(parameter)] == 0, name
    assert decays[id(model.head.fc.weight)] == 0.1


@every_family
def test_gradients_are_the_same_when_checkpointed(family):
    model, x = build(family, num_classes=3).double(), image().double()

    def gradients():
        model.zero_grad()
        model(x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    model.eval()
    expected = gradients()
    model.set_grad_checkpointing()
    assert all(stage.with_cp for stage in model.backbone.stages)
    torch.testing.assert_close(gradients(), expected)
    model.set_grad_checkpointing(False)
    assert not any(stage.with_cp for stage in model.backbone.stages)


@every_family
@pytest.mark.parametrize('features_only', [pytest.param(False, marks=pytest.mark.sweep), True])
def test_export(family, features_only):
    model, x = build(family, features_only=features_only).double().eval(), image(64, 64).double()
    with torch.no_grad():
        expected = model(x)
        found = torch.export.export(model, (x,)).module()(x)
    torch.testing.assert_close(found, expected)


@every_family
def test_grey_images(family):
    model = build(family, in_chans=1, num_classes=2)
    assert model(image()[:, :1]).shape == (2, 2)
    with pytest.raises(ValueError, match='in_channels is 1'):
        model(image())


@every_family
def test_wrong_options(family):
    with pytest.raises(ValueError, match='output_stride must be 32, got 16'):
        build(family, output_stride=16)
    model = build(family)
    with pytest.raises(ValueError, match='output_fmt'):
        model.forward_intermediates(image(), output_fmt='NHWC')
    with pytest.raises(ValueError, match="norm=True .* out_norm='output'"):
        model.forward_intermediates(image(), norm=True)
    with pytest.raises(ValueError, match='stop_early'):
        model.forward_intermediates(image(), stop_early=True)
    with pytest.raises(ValueError, match='in_channels must be a positive integer'):
        build(family, in_chans=0)


def test_regional_maps_are_no_option():
    with pytest.raises(ValueError, match='outputs is not an option here'):
        timm.create_model('regionvit_tiny', outputs='regional')
