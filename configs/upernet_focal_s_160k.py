_base_ = './upernet_focal_t_160k.py'

checkpoint = 'checkpoints/focal-small-useconv-is224-ws7.pth'
model = dict(
    backbone=dict(
        _base_.focal.s,
        use_conv_embed=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=_base_.focal_dims.s),
    auxiliary_head=dict(in_channels=_base_.focal_dims.s[2]),
)
