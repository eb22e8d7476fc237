# Sec. 4.2: the schedule of DyHead with Swin-L, as in mmdetection.
_base_ = [
    'mmdet::dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py',
    '_base_/backbones/focal.py',
    '_base_/tta_coco.py',
]

fpn, dyhead = _base_.model.neck
model = dict(
    backbone=dict(_base_.focal.l, out_indices=(1, 2, 3)),
    neck=[dict(fpn, in_channels=_base_.focal_dims.l[1:]), dyhead],
)
optim_wrapper = _base_.focal_decay
