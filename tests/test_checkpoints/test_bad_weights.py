"""Weights that are none: refused before anything of a model changes, or memory is taken."""

import io
import struct
import zipfile

import pytest
import torch
from tiny_backbones import build
from torch import nn

from mmvitbackbones import load_published
from mmvitbackbones.checkpoints import UnreadableCheckpointError, read_checkpoint
from mmvitbackbones.running import check_fit, check_overlap

NAME = 'stages.0.blocks.0.norm1.weight'


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


def load_backbone(backbone, state):
    load_published(backbone, state, source='x.pth')


def load_detector(backbone, state):
    load_published(Detector(backbone), of_detector(state), source='x.pth')


def fit(backbone, state):
    check_fit(backbone, dict(state_dict=state), 'x.pth')


def overlap(backbone, state):
    check_overlap(Detector(backbone), dict(state_dict=of_detector(state)), 'x.pth')


def of_detector(state):
    return {
        f'backbone.{name}' if isinstance(name, str) else name: tensor
        for name, tensor in state.items()
    }


def with_value(value):
    def change(tensor):
        tensor = tensor.clone()
        tensor[-1] = value
        return tensor

    return change


def quantised(tensor):
    return torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8)


TENSORS = {
    'meta': (lambda t: t.to('meta'), 'has no values, as it is on the meta device'),
    'sparse': (lambda t: t.to_sparse(), 'is sparse'),
    'sparse rows': (lambda t: t[None].to_sparse_csr(), 'is sparse'),
    'quantised': (quantised, 'is quantised'),
    'complex': (lambda t: t.to(torch.complex64), 'is complex'),
    'integer': (lambda t: t.to(torch.int64), 'holds torch.int64, the model torch.float'),
    'bytes': (lambda t: t.to(torch.uint8), 'holds torch.uint8, the model torch.float'),
    'bool': (lambda t: t.to(torch.bool), 'holds torch.bool, the model torch.float'),
    'not a number': (with_value(float('nan')), 'not finite'),
    'infinite': (with_value(float('inf')), 'not finite'),
    'minus infinite': (with_value(float('-inf')), 'not finite'),
    'too large': (lambda t: with_value(1e300)(t.double()), 'not finite in torch.float32'),
}
NAMES = {'a number': 3, 'a tuple': ('a', 'b'), 'bytes': b'weight', 'None': None}
LOADERS = [load_backbone, load_detector, fit, overlap]


def refused(loader, change, words):
    """Check that a changed state dict is refused, and that the model stays as it was."""
    backbone = build('RegionViT').float()
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    loader(backbone, dict(state))  # as it is, it is taken
    before = {name: tensor.clone() for name, tensor in state.items()}
    state = {
        name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()
    }
    change(state)
    with pytest.raises(ValueError, match=words) as error:
        loader(backbone, state)
    assert 'x.pth' in str(error.value) and '\n' not in str(error.value)
    after = backbone.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize('loader', LOADERS)
@pytest.mark.parametrize('kind', TENSORS)
def test_tensors_that_are_no_weights(kind, loader):
    make, words = TENSORS[kind]
    refused(loader, lambda state: state.update({NAME: make(state[NAME])}), words)


@pytest.mark.parametrize('loader', LOADERS)
@pytest.mark.parametrize('name', NAMES)
def test_names_that_are_no_strings(name, loader):
    words = 'as the name of a tensor: names are strings'
    refused(loader, lambda state: state.update({NAMES[name]: torch.zeros(3)}), words)


def test_a_counter_stays_an_integer():
    """Batch norms count in integers, which are no weights but belong to a model."""
    backbone = build('RMT').float()
    state = backbone.state_dict()
    counters = [name for name in state if name.endswith('num_batches_tracked')]
    assert counters
    load_published(backbone, state)
    state[counters[0]] = state[counters[0]].float()
    with pytest.raises(ValueError, match='holds torch.float32, the model torch.int64'):
        load_published(backbone, state)


HUGE = b'\x8a\x08' + struct.pack('<q', 10**13)  # an integer, pickled


def repacked(change, compression=zipfile.ZIP_STORED, zeros=10):
    """A checkpoint whose files are changed and packed again."""
    whole, changed = io.BytesIO(), io.BytesIO()
    torch.save(dict(weight=torch.zeros(zeros)), whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(changed, 'w', compression) as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, change(content) if name.endswith('data.pkl') else content)
    return changed.getvalue()


def of_huge_shape(content):
    assert b'K\x00K\n\x85' in content  # no offset; the shape (10,)
    return content.replace(b'K\x00K\n\x85', b'K\x00' + HUGE + b'\x85')


def of_huge_storage(content):
    assert b'K\nt' in content
    return content.replace(b'K\nt', HUGE + b't')


def old_format(change):
    whole = io.BytesIO()
    torch.save(dict(weight=torch.zeros(10)), whole, _use_new_zipfile_serialization=False)
    return change(whole.getvalue())


def of_huge_old_storage(content):
    assert b'K\nN' in content
    return content.replace(b'K\nN', HUGE + b'N')


FILES = {
    'a shape that cannot be': lambda: repacked(of_huge_shape),
    'a size that cannot be': lambda: repacked(of_huge_storage),
    'both': lambda: repacked(lambda content: of_huge_storage(of_huge_shape(content))),
    'an old file, a shape that cannot be': lambda: old_format(of_huge_shape),
    'an old file, a size that cannot be': lambda: old_format(of_huge_old_storage),
    'an archive of zeros': lambda: repacked(bytes, zipfile.ZIP_DEFLATED, zeros=10**6),
}


@pytest.mark.parametrize('kind', FILES)
def test_files_that_ask_for_too_much(kind, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(FILES[kind]())
    words = 'would unpack to 4,00' if kind == 'an archive of zeros' else 'damaged or cut short'
    with pytest.raises(UnreadableCheckpointError, match=words):
        read_checkpoint(path)
