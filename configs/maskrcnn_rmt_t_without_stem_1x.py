# Table 6: a patch embedding instead of the convolutional stem. No such weights are published; the
# name is ours.
_base_ = './maskrcnn_rmt_t_1x.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='tiny', stem='patch'),
        init_cfg=dict(checkpoint='checkpoints/RMT-T-without-stem.pth'),
    )
)
