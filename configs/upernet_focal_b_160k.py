_base_ = './upernet_focal_t_160k.py'

checkpoint = 'checkpoints/focal-base-useconv-is224-ws7.pth'
model = dict(
    backbone=dict(
        _base_.focal.b,
        use_conv_embed=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=_base_.focal_dims.b),
    auxiliary_head=dict(in_channels=_base_.focal_dims.b[2]),
)
