# No paper reports it: Swin's recipe with the drop path of RegionViT's Semantic FPN.
_base_ = [
    '_base_/models/upernet.py',
    '_base_/backbones/regionvit.py',
    '_base_/datasets/ade20k_512.py',
    '_base_/schedules/adamw_seg_160k.py',
    '_base_/default_runtime_seg.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=_base_.regionvit.s,
    decode_head=dict(in_channels=_base_.regionvit_dims.s),
    auxiliary_head=dict(in_channels=_base_.regionvit_dims.s[2]),
)
