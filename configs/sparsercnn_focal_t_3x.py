# Sparse R-CNN with 300 proposals, trained at 480..800 with the crop of DETR, as in mmdetection; the
# optimizer is Focal Transformer's (Sec. 4.2).
_base_ = [
    'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco.py',
    '_base_/backbones/focal.py',
    '_base_/tta_coco.py',
]

model = dict(backbone=_base_.focal.t, neck=dict(in_channels=_base_.focal_dims.t))
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05), **_base_.focal_decay)
