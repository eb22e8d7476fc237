"""A family of published files: named by the backbone's class, and all that a new paper needs."""

import pytest
import torch
from golden_cases import GoldenCase
from mmengine.registry import MODELS

import mmvitbackbones
from mmvitbackbones import load_published
from mmvitbackbones.checkpoints.conversion import Conversion
from mmvitbackbones.checkpoints.family import FAMILIES, Family, Hint, family_of

PUBLISHED = dict(  # a golden case, and the options of its file
    RegionViT=('regionvit_tiny_cls', dict(arch='tiny')),
    FocalTransformer=('focal_tiny_cls', dict(arch='tiny')),
    RMT=('rmt_tiny_cls', dict(arch='tiny')),
    VisionLongformer=('vil_tiny_rpe', dict(arch='tiny')),
)


@pytest.fixture
def state():
    """The published state dict of a backbone by its name, made once."""
    made = {}
    return lambda name: made.setdefault(name, GoldenCase(PUBLISHED[name][0]).weights())


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_subclass_loads_published_weights(name, state):
    """Registered under a name of its own, built by it, and filled as its base."""
    base, options = getattr(mmvitbackbones, name), PUBLISHED[name][1]
    MODELS.register_module(name='Mine', module=type('Mine', (base,), {}))
    try:
        mine = MODELS.build(dict(type='Mine', **options))
    finally:
        MODELS.module_dict.pop('Mine')
    report = load_published(mine, state(name))
    original = base(**options)
    load_published(original, state(name))
    assert type(mine).__name__ == 'Mine' and family_of(mine) is base.family
    assert report.kind == f'published {base.family.name}' and len(report.loaded) > 50
    for key, tensor in original.state_dict().items():
        if key in report.loaded:
            assert torch.equal(mine.state_dict()[key], tensor)


def test_every_backbone_names_its_family():
    """Each is known once, by a name and an address."""
    named = [getattr(mmvitbackbones, name).family for name in PUBLISHED]
    assert sorted(f.name for f in FAMILIES) == sorted(f.name for f in named)
    assert len({f.weights for f in FAMILIES}) == len(PUBLISHED)
    assert all(f.weights.startswith('github.com/') for f in FAMILIES)


@pytest.fixture
def fifth():
    """A paper that is added by its own files only."""
    made = Family(
        name='Fifth',
        weights='example.org/fifth',
        recognise=lambda state: 'fifth.weight' in state,
        convert=lambda state: Conversion(tensors={'stem.weight': state['fifth.weight']}),
        resize=lambda name, tensor, shape: None,
        hints=(Hint('the file is of a fifth: set fifth=True', missing=r'^other\.'),),
    )
    yield made
    FAMILIES.remove(made)


def test_files_of_a_fifth_family_are_recognised(fifth):
    model = mmvitbackbones.RMT('tiny')
    with pytest.raises(ValueError, match='holds Fifth weights, the model is RMT'):
        load_published(model, {'fifth.weight': torch.zeros(3)})


def test_a_backbone_of_a_fifth_family_loads(fifth):
    """With its own hint where something is missing."""

    class FifthBackbone(torch.nn.Module):
        family = fifth
        out_norm = None

        def __init__(self, *names):
            super().__init__()
            for name in names:
                self.add_module(name, torch.nn.Linear(3, 1, bias=False))

    weight = torch.randn(1, 3)
    model = FifthBackbone('stem')
    assert load_published(model, {'fifth.weight': weight}).kind == 'published Fifth'
    assert torch.equal(model.stem.weight, weight)
    with pytest.raises(ValueError, match='set fifth=True'):
        load_published(FifthBackbone('stem', 'other'), {'fifth.weight': weight})


@pytest.mark.parametrize(
    'missing, unexpected, fits',
    [
        (['a.b'], [], False),
        (['a.b'], ['c'], True),
        ([], ['c'], False),
        (['d'], ['c'], False),
    ],
)
def test_hints_ask_for_what_they_name(missing, unexpected, fits):
    assert Hint('', missing=r'^a\.', unexpected='c').fits(missing, unexpected) is fits


def test_other_models_have_no_family():
    with pytest.raises(TypeError, match='RegionViT, RMT, ViL.*got Linear'):
        load_published(torch.nn.Linear(1, 1), {})
