_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '_base_/backbones/regionvit.py',
    '_base_/datasets/coco_detection_ms_crop_672.py',
    '_base_/schedules/adamw_det_270k.py',
    '_base_/default_runtime_iterations.py',
]

model = dict(
    backbone=_base_.regionvit.s,
    neck=dict(in_channels=_base_.regionvit_dims.s),
)
