_base_ = [
    '_base_/models/semantic-fpn.py',
    '_base_/backbones/regionvit.py',
    '_base_/datasets/ade20k_448.py',
    '_base_/schedules/adamw_seg_80k.py',
    '_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.regionvit.s,
    neck=dict(in_channels=_base_.regionvit_dims.s),
)
# Appendix A.3.
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
