# Table 9: 4 blocks in the third stage. No such weights are published; the name is ours.
_base_ = './maskrcnn_focal_t_1x.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='tiny', depths=(2, 2, 4, 2)),
        init_cfg=dict(checkpoint='checkpoints/focal-tiny-depth4.pth'),
    )
)
