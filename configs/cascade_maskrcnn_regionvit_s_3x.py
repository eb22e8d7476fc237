# No paper reports it: RegionViT's 3x with the heads of Swin.
_base_ = [
    '_base_/models/cascade_mask-rcnn_4conv1fc.py',
    '_base_/backbones/regionvit.py',
    '_base_/datasets/coco_instance_ms_crop_672.py',
    '_base_/schedules/adamw_det_270k.py',
    '_base_/default_runtime_iterations.py',
]

model = dict(
    backbone=_base_.regionvit.s,
    neck=dict(in_channels=_base_.regionvit_dims.s),
)
