"""A family of published files: named by the backbone's class, and all that a new paper needs."""

import pytest
import torch
from mmengine.registry import MODELS
from published_files import FAMILIES as PUBLISHED
from published_files import RMT_FILES, every_family, same

from mmvitbackbones import load_published
from mmvitbackbones.checkpoints.conversion import Conversion
from mmvitbackbones.checkpoints.family import FAMILIES, Family, Hint, family_of


@every_family
def test_a_subclass_loads_published_weights(files):
    """Registered under a name of its own, built by it, and filled as its base."""
    base = files.backbone
    MODELS.register_module(name='Mine', module=type('Mine', (base,), {}))
    try:
        mine = MODELS.build(dict(type='Mine', arch=files.arch, out_norm=None, **files.options))
    finally:
        MODELS.module_dict.pop('Mine')
    report = load_published(mine, files.state())
    assert type(mine).__name__ == 'Mine' and family_of(mine) is base.family
    assert report.kind == f'published {base.family.name}'
    assert same(mine.state_dict(), files.ours())


def test_every_backbone_names_its_family():
    """Each is known once, by a name and an address."""
    named = [files.backbone.family for files in PUBLISHED.values()]
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
    with pytest.raises(ValueError, match='holds Fifth weights, the model is RMT'):
        load_published(RMT_FILES.build(), {'fifth.weight': torch.zeros(3)})


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
