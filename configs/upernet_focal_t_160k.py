_base_ = [
    '_base_/models/upernet.py',
    '_base_/backbones/focal.py',
    '_base_/datasets/ade20k_512.py',
    '_base_/schedules/adamw_seg_160k.py',
    '_base_/default_runtime_seg.py',
]

# The paper names neither the patch embedding nor the focal windows; its Table 6 tells by the
# parameters, 62, 85 and 126 M. Overlapping embeddings make 62.5, 84.8 and 126.8 M, plain ones 60.5,
# 82.8 and 123.4 M. The windows are the detectors'.
checkpoint = 'checkpoints/focal-tiny-useconv-is224-ws7.pth'
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        _base_.focal.t,
        use_conv_embed=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=_base_.focal_dims.t),
    auxiliary_head=dict(in_channels=_base_.focal_dims.t[2]),
)
optim_wrapper = _base_.focal_decay
