"""Published weights from a server of this machine: whole, once, and never over another file."""

import hashlib
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mmengine.config import Config
from running_tools import load

from mmvitbackbones import get_config
from mmvitbackbones.checkpoints.family import FAMILIES, Family, Source
from mmvitbackbones.running.download import fetch, weights_of

CONTENT = b'PK\x03\x04' + bytes(range(256)) * 20_000  # 5 MB: some blocks
SUM = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Files with versions; may end early, or know no ranges."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get('Range'))
        if not self.path.endswith('.pth'):
            self.send_error(404)
            return
        first, size = 0, len(server.content)
        asked = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
        if asked and server.ranges and self.headers['If-Range'] == server.version:
            first = int(asked[1])
            if first >= size:
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{size}')
                self.end_headers()
                return
            first -= server.shift
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {first}-{size - 1}/{size}')
        else:
            self.send_response(200)
        if server.sized:
            self.send_header('Content-Length', str(size - first))
        if server.version:
            self.send_header('ETag', server.version)
        self.end_headers()
        self.wfile.write(server.content[first : server.cut])

    def log_message(self, *args):
        """Nothing: the tests read what was asked."""


@pytest.fixture
def server():
    made = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    made.asked, made.content, made.version, made.cut, made.ranges = [], CONTENT, '"1"', None, True
    made.shift, made.sized = 0, True
    thread = threading.Thread(target=made.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def files(server):
    """A paper whose files are on this machine."""
    address = f'http://127.0.0.1:{server.server_address[1]}'
    made = Family(
        name='Near',
        source=Source(
            'https://example.org',
            'closed',
            'away since May',
            {'near.pth': f'{address}/near.pth', 'gone.pth': f'{address}/gone'},
        ),
        recognise=lambda state: False,
        convert=None,
        resize=None,
    )
    yield made.source.files
    FAMILIES.remove(made)


@pytest.fixture
def path(files, tmp_path):
    return tmp_path / 'checkpoints' / 'near.pth'


def names(path):
    return sorted(file.name for file in path.parent.iterdir())


def test_a_file_is_fetched_once(server, path):
    """And its sum is noted in a form that sha256sum checks."""
    said = fetch(path)
    assert path.read_bytes() == CONTENT and names(path) == ['SHA256SUMS', 'near.pth']
    assert f'5.1 MB, SHA-256 {SUM}' in said and 'noted in' in said
    assert path.with_name('SHA256SUMS').read_text() == f'{SUM}  near.pth\n'
    again = fetch(path)
    assert 'is there' in again and 'as in' in again and len(server.asked) == 1


def cut(server, path, after):
    """A call that gets the first bytes only."""
    server.cut = after
    with pytest.raises(OSError, match=rf'after {after} of {len(CONTENT)} bytes.*is kept') as error:
        fetch(path)
    assert '\n' not in str(error.value) and not path.exists()
    server.cut = None
    server.asked.clear()


@pytest.mark.parametrize('changed', ['nothing', 'file', 'ranges', 'version'])
def test_it_goes_on_where_it_stopped(server, path, changed):
    """From the beginning where the file is another one now, or the server cannot say."""
    if changed == 'version':
        server.version = ''
    cut(server, path, 3_000_000)
    if changed == 'file':
        server.content, server.version = CONTENT + CONTENT, '"2"'
    server.ranges = changed != 'ranges'
    fetch(path)
    assert path.read_bytes() == server.content and names(path) == ['SHA256SUMS', 'near.pth']
    assert server.asked == [None if changed == 'version' else 'bytes=3000000-']


@pytest.mark.parametrize('extra, requests', [(b'', 1), (b'more than there is', 2)])
def test_a_partial_file_that_has_all(server, path, extra, requests):
    """As a process leaves it that ends before the last step; with more it is of no use."""
    cut(server, path, 5)
    path.with_name('near.pth.part').write_bytes(CONTENT + extra)
    fetch(path)
    assert path.read_bytes() == CONTENT and len(server.asked) == requests


@pytest.mark.parametrize(
    'setting, value, words',
    [
        ('shift', 7, 'another part than was asked for'),
        ('sized', False, 'does not say how large'),
        ('content', b'<html>Sign in</html>', 'is no checkpoint: a page'),
    ],
)
def test_what_is_no_whole_file_is_refused(server, path, setting, value, words):
    cut(server, path, 3_000_000)
    setattr(server, setting, value)
    if setting != 'shift':
        server.version = '"2"'  # all of it is sent again
    with pytest.raises(OSError, match=words):
        fetch(path)
    assert not path.exists() and not path.with_name('SHA256SUMS').exists()
    setattr(server, setting, dict(shift=0, sized=True, content=CONTENT)[setting])
    fetch(path)
    assert path.read_bytes() == CONTENT


def test_sums_are_checked_and_added(path):
    path.parent.mkdir()
    sums = path.with_name('SHA256SUMS')
    sums.write_text('0123  near.pth')
    with pytest.raises(ValueError, match=rf'part has the SHA-256 {SUM}, but .*SUMS has 0123'):
        fetch(path)
    assert not path.exists() and sums.read_text() == '0123  near.pth'
    sums.write_text('0123  other.pth')  # without an end of the line
    fetch(path)
    assert sums.read_text() == f'0123  other.pth\n{SUM}  near.pth\n'
    sums.write_text(f'{SUM.upper()} *near.pth\n')
    assert 'as in' in fetch(path)


def test_a_file_of_that_name_stays(server, path):
    """Even one that is no such file: only its sum tells."""
    path.parent.mkdir()
    path.write_bytes(b'mine')
    assert 'is there' in fetch(path)
    path.with_name('gone.pth').symlink_to('nowhere')
    with pytest.raises(FileExistsError, match='is no file: move it away'):
        fetch(path.with_name('gone.pth'))
    assert path.read_bytes() == b'mine' and not server.asked


def test_what_cannot_be_fetched_is_said_in_one_line(server, path, tmp_path):
    with pytest.raises(OSError, match='HTTP 404 Not Found; users report: away since May') as error:
        fetch(tmp_path / 'gone.pth')
    assert '\n' not in str(error.value) and not list(tmp_path.iterdir())
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=r'no connection \(.*refused.*belongs in .*near\.pth\.$'):
        fetch(path)
    with pytest.raises(OSError, match=r'Baidu.*Open https://pan\.baidu\.com/s/.* in a browser'):
        fetch(tmp_path / 'RMT-S.pth')
    with pytest.raises(FileNotFoundError, match='nobody publishes a file mine.pth'):
        fetch(tmp_path / 'mine.pth')


@pytest.mark.parametrize(
    'name, files',
    [
        ('maskrcnn_regionvit_s_1x', ['MaskRCNN_1x_RegionViT-S.pth', 'RegionViT-S.pth']),
        (
            'retinanet_regionvit_b_plus_peg_896_3x',
            ['RetinaNet_3x_RegionViT-B+peg_dagger.pth', 'RegionViT-B.pth'],
        ),
        ('semfpn_rmt_s_80k', ['RMT-S.pth']),
        ('cls_focal_t_in1k', ['focal-tiny-is224-ws7.pth']),
    ],
)
def test_what_a_config_needs(name, files):
    pytest.importorskip('mmdet')
    assert weights_of(get_config(name)) == [Path('checkpoints', file) for file in files]


def test_the_tool(path, tmp_path, monkeypatch, capsys):
    """A file that fails does not keep the next one back."""
    monkeypatch.chdir(tmp_path)
    cfg = dict(init_cfg=dict(checkpoint='checkpoints/mine.pth'), type='RMT')
    Config(dict(model=dict(backbone=cfg), load_from='checkpoints/near.pth')).dump('config.py')
    monkeypatch.setattr(sys, 'argv', ['download.py', 'config.py'])
    with pytest.raises(SystemExit) as end:
        load('download').main()
    said = capsys.readouterr()
    assert end.value.code == 2 and 'nobody publishes a file mine.pth' in said.err
    assert path.read_bytes() == CONTENT and SUM in said.out

    monkeypatch.setattr(sys, 'argv', ['download.py', 'checkpoints/near.pth'])
    with pytest.raises(SystemExit) as end:
        load('download').main()
    assert end.value.code == 0 and 'is there' in capsys.readouterr().out
