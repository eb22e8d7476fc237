# Table 9: 2 blocks in the third stage. No such weights are published; the name is ours.
_base_ = './maskrcnn_focal_t_1x.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='tiny', depths=(2, 2, 2, 2)),
        init_cfg=dict(checkpoint='checkpoints/focal-tiny-depth2.pth'),
    )
)
