# Figure 5: no coarse tokens. No such weights are published; the name is ours.
_base_ = './maskrcnn_focal_t_1x.py'

model = dict(
    backbone=dict(
        focal_windows=0,
        init_cfg=dict(checkpoint='checkpoints/focal-tiny-local.pth'),
    )
)
