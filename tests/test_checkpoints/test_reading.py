"""Reading checkpoints: what is plain data loads, and nothing in a file runs."""

import argparse
import functools
import http.server
import io
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from mmvitbackbones.checkpoints import (
    UnreadableCheckpointError,
    read_checkpoint,
    reading,
    use_safe_loading,
)

# In a process of its own, as a Runner leaves settings behind.
TRAINING = """
import sys, torch
from mmengine.model import BaseModel
from mmengine.runner import Runner

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(inputs).square().mean()}

Runner(
    Model(),
    sys.argv[1],
    train_dataloader=dict(
        dataset=[dict(inputs=torch.ones(2) * i) for i in range(3)],
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
    ),
    train_cfg=dict(by_epoch=True, max_epochs=1),
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
    param_scheduler=dict(type='LinearLR', end=3, by_epoch=False),
    default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
).train()
"""


def content():
    """What a training run of mmengine saves."""
    log = HistoryBuffer()
    log.update(0.5)
    log.update(0.25)
    return dict(
        meta=dict(epoch=1, iter=2, seed=0, dataset_meta=dict(classes=('a', 'b'))),
        state_dict={'layer.weight': torch.arange(6.0).view(2, 3), 'layer.bias': torch.ones(2)},
        message_hub=dict(
            log_scalars={'train/loss': log},
            runtime_info=dict(lr=np.float64(0.1), steps=np.int64(3), mean=np.float32(0.5)),
            resumed_keys={'train/loss': True},
        ),
        optimizer=dict(state={0: dict(step=torch.tensor(1.0))}, param_groups=[dict(lr=0.1)]),
    )


def saved(obj, zipped=True):
    buffer = io.BytesIO()
    torch.save(obj, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


class Command:
    """Runs a command when it is unpickled without care."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Plain:
    """Runs nothing, but is no plain data."""


class Attribute:
    """An attribute of what may be unpickled."""

    def __init__(self, owner, name):
        self.of = owner, name

    def __reduce__(self):
        return getattr, self.of


def refused(path):
    """The message of a refusal, which names the file."""
    with pytest.raises(UnreadableCheckpointError) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_a_training_run_of_mmengine(tmp_path):
    subprocess.run(
        [sys.executable, '-c', TRAINING, tmp_path], check=True, capture_output=True, timeout=120
    )
    checkpoint = read_checkpoint(tmp_path / 'epoch_1.pth')
    assert checkpoint['state_dict']['layer.weight'].shape == (1, 2)
    assert checkpoint['optimizer']['state'][0]['exp_avg'].shape == (1, 2)
    assert checkpoint['meta']['iter'] == 3
    log = checkpoint['message_hub']['log_scalars']['train/loss']
    assert isinstance(log, HistoryBuffer)
    assert len(log.data[0]) == 3
    assert log.mean() == pytest.approx(log.data[0].mean())


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('numpy', ['numpy._core', 'numpy.core'])
def test_logs_and_numpy_values(tmp_path, zipped, numpy):
    """Written by either NumPy, which renamed a module in version 2."""
    path, data = tmp_path / 'x.pth', saved(content(), zipped)
    if not zipped:
        assert b'numpy._core' in data or b'numpy.core' in data
        data = data.replace(b'numpy._core', b'numpy.core').replace(b'numpy.core', numpy.encode())
    path.write_bytes(data)
    checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint['state_dict']['layer.weight'], torch.arange(6.0).view(2, 3))
    log = checkpoint['message_hub']['log_scalars']['train/loss']
    assert log.data[0].tolist() == [0.5, 0.25]
    assert log.statistics('min') == 0.25 and log.current() == 0.25
    assert checkpoint['message_hub']['runtime_info'] == dict(lr=0.1, steps=3, mean=0.5)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('form', ['zip', 'legacy', 'pickle'])
def test_code_does_not_run(tmp_path, form, protocol):
    marker, path = tmp_path / 'ran', tmp_path / 'evil.pth'
    obj = dict(state_dict={'w': torch.ones(2)}, x=Command(f'touch {marker}'))
    if form == 'pickle':
        path.write_bytes(pickle.dumps(dict(x=obj['x']), protocol=protocol))
    else:
        torch.save(
            obj, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form == 'zip'
        )
    message = refused(path)
    if protocol >= 2:
        assert 'could run code' in message and 'Save its tensors alone' in message
    assert not marker.exists()
    if form == 'pickle':
        with open(path, 'rb') as file:
            pickle.load(file)
        assert marker.exists()  # the file is as harmful as it is meant to be


@pytest.mark.parametrize(
    'obj, name',
    [
        (Plain(), 'Plain'),
        (torch.nn.Linear(2, 2), 'torch.nn.modules.linear.Linear'),
        (Attribute(HistoryBuffer, '__init__'), 'getattr'),
        (Attribute(HistoryBuffer, 'update'), 'getattr'),
        (Attribute({}, 'pop'), 'getattr'),
        (np.array([object()]), 'Object'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_other_classes_are_refused(tmp_path, obj, name):
    torch.save(dict(x=obj), tmp_path / 'x.pth')
    message = refused(tmp_path / 'x.pth')
    assert 'more than tensors and plain data' in message and name in message


@pytest.mark.parametrize('share', [0.001, 0.1, 0.5, 0.9, 0.999])
def test_truncated_zip(tmp_path, share):
    path, data = tmp_path / 'cut.pth', saved(content())
    path.write_bytes(data[: int(share * len(data))])
    assert 'damaged or cut short' in refused(path)


def test_truncated_legacy_file(tmp_path):
    """At every length, as its parser has no checksum and fails in many ways."""
    path, data = tmp_path / 'cut.pth', saved(dict(state_dict={'w': torch.ones(9)}), False)
    messages = []
    for length in range(len(data)):
        path.write_bytes(data[:length])
        messages.append(refused(path))
    # What is cut within a name looks like an unknown one.
    assert sum('damaged or cut short' in message for message in messages) > 0.7 * len(data)
    assert all('cut short' in message for message in messages[-36:])


@pytest.mark.parametrize('where', [0.1, 0.3, 0.5])
def test_damaged_legacy_file(tmp_path, where):
    data = bytearray(saved(content(), False))
    start = int(where * len(data))
    data[start : start + 20] = b'?' * 20
    (tmp_path / 'x.pth').write_bytes(data)
    refused(tmp_path / 'x.pth')


@pytest.mark.parametrize(
    'data',
    [b'', b'P', b'<html>404 Not Found</html>', b'version https://git-lfs.github.com/spec/v1\n'],
    ids=['empty', 'byte', 'web page', 'git-lfs pointer'],
)
def test_no_checkpoint(tmp_path, data):
    (tmp_path / 'x.pth').write_bytes(data)
    assert 'is not a PyTorch checkpoint' in refused(tmp_path / 'x.pth')


@pytest.mark.parametrize('obj, kind', [(torch.ones(2), 'Tensor'), ([torch.ones(2)], 'list')])
def test_no_dict(tmp_path, obj, kind):
    torch.save(obj, tmp_path / 'x.pth')
    assert f'holds a {kind}, not a dict' in refused(tmp_path / 'x.pth')


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / 'none.pth', '~/none/none.pth'):
        with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
            read_checkpoint(path)


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(content(), tmp_path / 'x.pth')
    assert read_checkpoint('~/x.pth')['meta']['epoch'] == 1


@pytest.mark.parametrize('error', [MemoryError, PermissionError])
def test_what_is_no_fault_of_the_file(tmp_path, error):
    """Where its tensors go to fails, and says so itself."""

    def no_room(storage, location):
        raise error('no room')

    torch.save(content(), tmp_path / 'x.pth')
    with pytest.raises(error, match='no room'):
        read_checkpoint(tmp_path / 'x.pth', map_location=no_room)


# URLs.


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A web site: its folder, its URL, and the requests it got."""
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f'http://127.0.0.1:{server.server_port}', requests
        server.shutdown()
        thread.join()


def test_url_is_fetched_once(site, tmp_path):
    folder, url, requests = site
    torch.save(content(), folder / 'x.pth')
    for _ in range(2):
        checkpoint = read_checkpoint(f'{url}/x.pth?download=1')
        assert checkpoint['meta'] == content()['meta']
    assert len(requests) == 1
    assert (tmp_path / 'torch' / 'hub' / 'checkpoints' / 'x.pth').is_file()


@pytest.mark.parametrize('same_machine', [True, False])
def test_url_after_the_first_process(site, tmp_path, monkeypatch, second_process, same_machine):
    """Others wait before they look; on another machine they find nothing and fetch it, too."""
    folder, url, requests = site
    torch.save(content(), folder / 'x.pth')

    def wait():
        if same_machine:
            kept.mkdir(parents=True)
            shutil.copy(folder / 'x.pth', kept)

    kept = tmp_path / 'torch' / 'hub' / 'checkpoints'
    monkeypatch.setattr(reading, 'barrier', wait)
    assert read_checkpoint(f'{url}/x.pth')['meta'] == content()['meta']
    assert len(requests) == (0 if same_machine else 1)


def test_url_of_code(site, tmp_path):
    folder, url, _ = site
    torch.save(dict(x=Command(f'touch {tmp_path}/ran')), folder / 'x.pth')
    with pytest.raises(UnreadableCheckpointError, match='x.pth.*could run code'):
        read_checkpoint(f'{url}/x.pth')
    assert not (tmp_path / 'ran').exists()


def test_url_of_nothing(site):
    _, url, _ = site
    with pytest.raises(UnreadableCheckpointError, match='could not fetch .*none.pth.*404'):
        read_checkpoint(f'{url}/none.pth')


# mmengine's own loading.


@pytest.fixture
def safe_loading(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())
    use_safe_loading()


def test_mmengine_loads_through_it(safe_loading, tmp_path):
    torch.save(content(), tmp_path / 'x.pth')
    model = torch.nn.ModuleDict(dict(layer=torch.nn.Linear(3, 2)))
    checkpoint = load_checkpoint(model, str(tmp_path / 'x.pth'), map_location='cpu', strict=True)
    assert torch.equal(model['layer'].weight, content()['state_dict']['layer.weight'])
    assert checkpoint['message_hub']['log_scalars']['train/loss'].current() == 0.25


def test_mmengine_refuses_code(safe_loading, tmp_path):
    torch.save(dict(x=Command(f'touch {tmp_path}/ran')), tmp_path / 'x.pth')
    with pytest.raises(UnreadableCheckpointError, match='x.pth.*could run code'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'x.pth'), 'cpu')
    assert not (tmp_path / 'ran').exists()


def test_mmengine_loads_urls_through_it(safe_loading, site):
    folder, url, requests = site
    torch.save(content(), folder / 'x.pth')
    checkpoint = CheckpointLoader.load_checkpoint(f'{url}/x.pth', 'cpu')
    assert checkpoint['meta']['iter'] == 2 and requests


def test_arguments_of_a_command_line(tmp_path):
    """Many published training scripts save theirs beside the weights."""
    arguments = argparse.Namespace(lr=1e-3, name='tiny', sizes=[224])
    torch.save(dict(model=dict(w=torch.ones(2)), args=arguments), tmp_path / 'published.pth')
    found = read_checkpoint(tmp_path / 'published.pth')
    assert found['args'] == arguments and torch.equal(found['model']['w'], torch.ones(2))
    arguments.code = Path.home  # a function
    torch.save(dict(args=arguments), tmp_path / 'code.pth')
    with pytest.raises(UnreadableCheckpointError, match='more than tensors'):
        read_checkpoint(tmp_path / 'code.pth')
