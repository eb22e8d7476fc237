# Figure 5: no surroundings token by token. No such weights are published; the name is ours.
_base_ = './maskrcnn_focal_t_1x.py'

model = dict(
    backbone=dict(
        expand_sizes=0,
        init_cfg=dict(checkpoint='checkpoints/focal-tiny-global.pth'),
    )
)
