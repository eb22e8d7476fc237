# No paper reports it: RegionViT's 1x.
_base_ = [
    '_base_/models/htc.py',
    '_base_/backbones/regionvit.py',
    '_base_/datasets/coco_semantic_672.py',
    '_base_/schedules/adamw_det_1x.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=_base_.regionvit.s,
    neck=dict(in_channels=_base_.regionvit_dims.s),
)
