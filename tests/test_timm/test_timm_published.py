"""Published files, and our own, in timm's models: ``checkpoint_path``, ``pretrained``."""

import subprocess
import sys
from argparse import Namespace

import pytest

pytest.importorskip('timm')

import golden_cases
import numpy as np
import timm
import torch
from published_files import FAMILIES
from timm_models import NAMES, build, image

from mmvitbackbones.checkpoints import load_published, read_checkpoint
from mmvitbackbones.timm import SIZES

every_family = pytest.mark.parametrize('family', NAMES)
CLASSIFIERS = dict(
    RegionViT='regionvit_tiny_cls',
    FocalTransformer='focal_tiny_cls',
    RMT='rmt_tiny_cls',
    VisionLongformer='vil_tiny_rpe',
)
QUICK = {'regionvit_tiny_det_odd', 'focal_tiny_padded', 'rmt_tiny_odd', 'vil_tiny_rpe_padded'}
MAPS = [
    pytest.param(family, case, id=case, marks=() if case in QUICK else pytest.mark.sweep)
    for family, files in FAMILIES.items()
    for case in golden_cases.names(files.golden)
]


def save(weights, path):
    torch.save({'model': weights, 'epoch': 300}, path)
    return str(path)


@pytest.mark.parametrize('family', CLASSIFIERS)
def test_logits(family, tmp_path):
    case = golden_cases.GoldenCase(CLASSIFIERS[family])
    path = save(case.weights(), tmp_path / 'published.pth')
    model = timm.create_model(NAMES[family], checkpoint_path=path).eval()
    logits = case.arrays['logits']
    double = 1e-6 if family == 'RMT' else 1e-9
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, double)):
        with torch.no_grad():
            found = model.to(dtype)(case.image().to(dtype)).double().numpy()
        assert np.abs(found - logits).max() <= tolerance * logits.std()


@pytest.mark.parametrize('family, case', MAPS)
def test_maps(family, case, tmp_path):
    case, files = golden_cases.GoldenCase(case), FAMILIES[family]
    path = save(case.weights(), tmp_path / 'published.pth')
    options = {'out_norm': None, **files.of_case(case)}
    options = {name: v for name, v in options.items() if name not in files.file_only}
    model = timm.create_model(
        NAMES[family], features_only=True, checkpoint_path=path, drop_path_rate=0.0, **options
    )
    double = 1e-6 if family == 'RMT' else 1e-9
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, double)):
        with torch.no_grad():
            case.check(model.to(dtype).eval()(case.image().to(dtype)), tolerance)


def tiny(family, **options):
    """A model for the tiny published file of a family, and the file."""
    files = FAMILIES[family]
    options = {'arch': files.arch, 'drop_path_rate': 0.0, **files.options, **options}
    options = {name: v for name, v in options.items() if name not in files.file_only}
    return timm.create_model(NAMES[family], **options)


@every_family
@pytest.mark.parametrize('how', ['file', 'url', 'state_dict'])
def test_pretrained_from_what_is_named(family, how, tmp_path):
    weights = FAMILIES[family].state()
    file = save(weights, tmp_path / 'published.pth')
    url = (tmp_path / 'published.pth').as_uri()
    overlay = {how: dict(file=file, url=url, state_dict=weights)[how]}
    expected = tiny(family, checkpoint_path=file)
    options = dict(pretrained=True, pretrained_cfg_overlay=overlay)
    found = tiny(family, cache_dir=tmp_path / 'cache', **options)
    assert same(found, expected) and not same(found, tiny(family))


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@every_family
@pytest.mark.parametrize('classes', [0, 7])
def test_other_numbers_of_classes(family, classes, tmp_path):
    path = save(FAMILIES[family].state(), tmp_path / 'published.pth')
    whole = tiny(family, checkpoint_path=path).eval()
    model = tiny(family, checkpoint_path=path, num_classes=classes).eval()
    with torch.no_grad():
        assert torch.equal(model.forward_features(image()), whole.forward_features(image()))
        assert model(image()).shape == (2, classes or model.head_hidden_size)


@every_family
def test_grey_images_are_as_three_equal_colours(family):
    weights = {
        n: t.double() if t.is_floating_point() else t for n, t in FAMILIES[family].state().items()
    }
    colours, grey = (tiny(family, in_chans=n).double().eval() for n in (3, 1))
    for model in (colours, grey):
        model.load_state_dict(weights)
    x = image().double()[:, :1]
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colours(x.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match='in_channels is 4'):
        tiny(family, in_chans=4).load_state_dict(weights)


@every_family
def test_our_own_files(family, tmp_path):
    """What timm saves of a model, of its maps, and what mmengine saves of a backbone."""
    first, path = build(family, num_classes=3), str(tmp_path / 'own.pth')
    torch.save(first.state_dict(), path)
    second = build(family, seed=1, num_classes=3)
    assert not same(second, first)
    timm.models.load_checkpoint(second, path)
    assert same(second, first)
    features = build(family, seed=1, features_only=True)
    timm.models.load_checkpoint(features, path)  # those of a classifier
    assert same(features.model.backbone, first.backbone)
    other = build(family, seed=2, features_only=True)
    other.load_state_dict(features.state_dict())
    assert same(other, features)
    other = build(family, seed=2, features_only=True)
    other.load_state_dict(first.backbone.state_dict())
    assert same(other.model.backbone, first.backbone)


def test_the_last_global_token_is_not_lost():
    """ViL's classifier of a file with one in the last stage needs it, as through mmengine."""
    weights = FAMILIES['VisionLongformer'].state(num_global_tokens=(1, 1, 1, 1))
    with pytest.raises(ValueError, match="num_global_tokens=1 and outputs='all'"):
        tiny('VisionLongformer').load_state_dict(weights)
    options = dict(num_global_tokens=1, outputs='all')
    model = tiny('VisionLongformer', **options).eval()
    model.load_state_dict(weights)
    backbone = FAMILIES['VisionLongformer'].build(**options).eval()
    load_published(backbone, weights)
    with torch.no_grad():
        tokens = backbone(image())[-1].transpose(1, 2)
        norm = torch.nn.functional.layer_norm
        shape, weight, bias = tokens.shape[-1:], weights['norm.weight'], weights['norm.bias']
        pooled = norm(tokens, shape, weight, bias, eps=1e-6).mean(1)
        expected = pooled @ weights['head.weight'].T + weights['head.bias']
        torch.testing.assert_close(model(image()), expected)


@every_family
def test_what_does_not_fit_is_refused(family):
    model = tiny(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    others = next(name for name in FAMILIES if name != family)
    with pytest.raises(ValueError, match='weights, the model is'):
        model.load_state_dict(FAMILIES[others].state())
    lacking = FAMILIES[family].without('norm.bias')
    with pytest.raises(ValueError, match='neck.norm.bias'):
        model.load_state_dict(lacking)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())


def test_pretrained_says_where_files_are():
    open_to_all = [name for name in SIZES if timm.get_pretrained_cfg(name).url]
    assert open_to_all == [f'regionvit_{size}' for size in ('tiny', 'small', 'medium', 'base')]
    with pytest.raises(RuntimeError, match='rmt_tiny: .* checkpoint_path; .* https://'):
        timm.create_model('rmt_tiny', pretrained=True)


def test_the_package_does_without_timm():
    code = "import sys, mmvitbackbones; assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)


def test_reading_by_timm_leaves_our_reading_as_it_was(tmp_path):
    """timm takes a class off torch's list of safe ones that it did not put there."""
    weights = golden_cases.GoldenCase('rmt_tiny_cls').weights()
    path = save(weights, tmp_path / 'RMT-T.pth')
    torch.save(dict(model=weights, args=Namespace(lr=1)), tmp_path / 'with_args.pth')
    timm.create_model('rmt_tiny', checkpoint_path=path)
    assert read_checkpoint(tmp_path / 'with_args.pth')['args'].lr == 1
