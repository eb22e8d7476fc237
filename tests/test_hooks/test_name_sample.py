"""An error in the middle of an epoch names the image that it is about."""

import pytest

pytest.importorskip('mmdet')

import torch
from data_faults import PICTURE, change_annotation, cut, detection
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from own_data_folders import make_coco
from running_tools import own_instances

from mmvitbackbones import NameSampleHook


class Nothing(BaseModel):
    """Learns nothing, from anything."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.weight.sum())


def train(folder, workers):
    cfg = Config(detection(folder))
    loader = cfg.train_dataloader
    loader.update(num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=False))
    loader.collate_fn = dict(type='pseudo_collate')
    with own_instances():
        init_default_scope('mmdet')
        runner = Runner(
            Nothing(),
            work_dir=str(folder / 'work'),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_scope='mmdet',
            default_hooks=dict(logger=None, checkpoint=None),
            log_level='ERROR',
        )
        runner.register_hook(NameSampleHook())
        runner.train()
        return runner


@pytest.mark.parametrize(
    'spoil, said, workers',
    [
        (lambda folder: (folder / 'train2017' / PICTURE).write_bytes(b''), 'error: .*empty', 1),
        (lambda folder: cut(folder / 'train2017' / PICTURE), 'AssertionError: failed to load', 1),
        (lambda folder: change_annotation(folder, segmentation=None), "KeyError: 'mask'", 1),
        (lambda folder: change_annotation(folder, segmentation=None), "KeyError: 'mask'", 0),
    ],
    ids=['an empty file', 'a file cut short', 'an object without mask', 'in this process'],
)
def test_the_image_is_named(spoil, said, workers, tmp_path):
    make_coco(tmp_path)
    spoil(tmp_path)
    with pytest.raises(RuntimeError, match=rf'(?s)/train2017/{PICTURE}: {said}'):
        train(tmp_path, workers)


def test_a_training_goes_on_as_without(tmp_path):
    make_coco(tmp_path)
    assert train(tmp_path, 0).iter == 10  # five images with objects, twice
