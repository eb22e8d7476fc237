"""A family of published files: named by the backbone's class, and all that a new paper needs."""

import pytest
import torch
from mmengine.registry import MODELS
from published_files import FAMILIES as PUBLISHED
from published_files import RMT_FILES, every_family, same

from mmvitbackbones import load_published
from mmvitbackbones.checkpoints.conversion import Conversion
from mmvitbackbones.checkpoints.family import FAMILIES, Family, Hint, Source, family_of


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
    """Each is known once, by a name, a page, and files that no other has."""
    named = [files.backbone.family for files in PUBLISHED.values()]
    assert sorted(f.name for f in FAMILIES) == sorted(f.name for f in named)
    assert len({f.source.page for f in FAMILIES}) == len(PUBLISHED)
    addresses = [address for f in FAMILIES for address in f.source.files.values()]
    names = {name for f in FAMILIES for name in f.source.files}
    assert len(names) == len(set(addresses)) == sum(len(f.source.files) for f in FAMILIES)
    assert all(address.startswith('https://') for address in addresses)


@pytest.mark.parametrize(
    'path, words',
    [
        ('checkpoints/RegionViT-S.pth', ['tools/download.py RegionViT-S.pth', 'IBM/RegionViT']),
        ('focal-tiny-is224-ws7.pth', ['blob.core', 'not public since November 2023']),
        ('RMT-S.pth', ['pan.baidu.com/s/1aQeErkmy191-zshlW2bT0g?pwd=3ay4', 'Baidu']),
        ('ViL-S-RPB.pth', ['small1281_relative/model_best.pth', 'April 2025']),
    ],
)
def test_a_missing_file_that_is_published_is_said_where(path, words):
    """Also where mmengine itself loads the backbone."""
    with pytest.raises(FileNotFoundError) as error:
        load_published(RMT_FILES.build(), path)
    assert all(word in str(error.value) for word in words)


def test_a_missing_file_that_nobody_publishes():
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 'mine\.pth'$"):
        load_published(RMT_FILES.build(), 'mine.pth')


@pytest.fixture
def fifth():
    """A paper that is added by its own files only."""
    made = Family(
        name='Fifth',
        source=Source('https://example.org/fifth', 'open', 'fine', {}),
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
