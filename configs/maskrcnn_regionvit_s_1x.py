_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '_base_/datasets/coco_instance_672.py',
    '_base_/schedules/regionvit_det_1x.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='RegionViT',
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RegionViT-S.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
