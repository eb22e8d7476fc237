"""The checkpoint that a training goes on from, whatever has become of its folder."""

import shutil

import pytest
import torch

from mmvitbackbones.checkpoints import UnreadableCheckpointError, newest_checkpoint, read_checkpoint


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints of a training; the names alone would put the tenth epoch first."""
    for epoch in (8, 9, 10):
        meta = dict(epoch=epoch, iter=5 * epoch, time=f'20260102_0304{epoch:02d}')
        content = dict(meta=meta, state_dict=dict(weight=torch.rand(5000)), optimizer={})
        torch.save(content, tmp_path / f'epoch_{epoch}.pth')
    torch.save(
        dict(state_dict={}, meta=dict(epoch=11)), tmp_path / 'best_coco_bbox_mAP_epoch_11.pth'
    )
    (tmp_path / 'last_checkpoint').write_text('epoch_10.pth')
    return tmp_path


def names(text):
    return lambda folder: (folder / 'last_checkpoint').write_text(text)


def no_last_checkpoint(folder):
    (folder / 'last_checkpoint').unlink()


def a_folder(folder):
    (folder / 'epoch_10.pth').unlink()
    (folder / 'epoch_10.pth').mkdir()


def last_is_a_folder(folder):
    no_last_checkpoint(folder)
    (folder / 'last_checkpoint').mkdir()


def cut_short(folder):
    path = folder / 'epoch_10.pth'
    path.write_bytes(path.read_bytes()[:-3000])


def one_bit(folder):
    path = folder / 'epoch_10.pth'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(folder):
    (folder / 'epoch_10.pth').write_bytes(b'')


def weights_alone(folder):
    torch.save(dict(weight=torch.rand(3)), folder / 'epoch_10.pth')


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


FAULTS = {
    'nothing': (names('epoch_10.pth'), 10, None),
    'an earlier one is named': (names('epoch_9.pth'), 9, None),
    'the path of another machine': (names('/elsewhere/work_dirs/x/epoch_10.pth'), 10, None),
    'a file of another machine': (names('/elsewhere/epoch_12.pth'), 10, 'which is not there'),
    'a file that is gone': (names('epoch_12.pth'), 10, 'names epoch_12.pth, which is not there'),
    'missing': (no_last_checkpoint, 10, 'last_checkpoint is missing'),
    'empty': (names(''), 10, 'last_checkpoint is empty'),
    'a folder': (last_is_a_folder, 10, 'last_checkpoint cannot be read'),
    'names a folder': (a_folder, 9, 'epoch_10.pth is a folder'),
    'names a file cut short': (cut_short, 9, 'damaged or cut short'),
    'names a file with a bit flipped': (one_bit, 9, 'damaged or cut short'),
    'names an empty file': (empty, 9, 'damaged or cut short'),
    'names weights alone': (weights_alone, 9, 'epoch_10.pth is no checkpoint of a training'),
    'missing, and the last cut short': (both(no_last_checkpoint, cut_short), 9, 'is missing'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_the_next_good_one_is_taken(fault, folder):
    change, epoch, problem = FAULTS[fault]
    change(folder)
    path, remarks = newest_checkpoint(folder)
    assert path == str(folder / f'epoch_{epoch}.pth')
    assert read_checkpoint(path)['meta']['epoch'] == epoch
    if problem is None:
        assert remarks == []
    else:
        assert any(problem in remark for remark in remarks)
        assert remarks[-1] == f'resuming from {path} instead'


def test_another_training_in_the_same_folder_was_longer(folder):
    """Of the files of the newer training the last good one counts."""
    for epoch in (1, 2):
        meta = dict(epoch=epoch, iter=5 * epoch, time=f'20260203_0000{epoch:02d}')
        torch.save(dict(meta=meta, state_dict={}), folder / f'epoch_{epoch}.pth')
    names('epoch_3.pth')(folder)
    assert newest_checkpoint(folder)[0] == str(folder / 'epoch_2.pth')


def test_a_folder_that_was_moved(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp('moved') / 'work'
    shutil.move(folder, moved)
    assert newest_checkpoint(moved) == (str(moved / 'epoch_10.pth'), [])


def test_none(tmp_path):
    assert newest_checkpoint(tmp_path) == (None, [])
    assert newest_checkpoint(tmp_path / 'absent') == (None, [])
    torch.save(dict(weight=torch.rand(3)), tmp_path / 'someones_weights.pth')
    assert newest_checkpoint(tmp_path) == (None, [])


def test_none_that_is_good(folder):
    for path in folder.glob('epoch_*.pth'):
        path.write_bytes(b'PK')
    with pytest.raises(UnreadableCheckpointError) as error:
        newest_checkpoint(folder)
    assert all(f'epoch_{epoch}.pth' in str(error.value) for epoch in (8, 9, 10))
    assert 'take another --work-dir' in str(error.value) and 'fetch it again' not in str(
        error.value
    )


def test_files_without_checksums_are_read(tmp_path):
    """Torch can be told not to write them."""
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(weight=torch.ones(3)), tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(tmp_path / 'x.pth')['weight'].sum() == 3


def test_a_published_file_can_be_fetched_again(tmp_path):
    path = tmp_path / 'MaskRCNN_1x_RegionViT-S.pth'
    path.write_bytes(b'PK\x03\x04')
    with pytest.raises(UnreadableCheckpointError, match='fetch it again'):
        read_checkpoint(path)
