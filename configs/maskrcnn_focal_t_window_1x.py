# Figure 5: nothing but a window's own tokens. No such weights are published; the name is ours.
_base_ = './maskrcnn_focal_t_1x.py'

model = dict(
    backbone=dict(
        expand_sizes=0,
        focal_windows=0,
        init_cfg=dict(checkpoint='checkpoints/focal-tiny-window.pth'),
    )
)
