# Table 6: no conditional position encoding. No such weights are published; the name is ours.
_base_ = './maskrcnn_rmt_t_1x.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='tiny', cpe=False),
        init_cfg=dict(checkpoint='checkpoints/RMT-T-without-cpe.pth'),
    )
)
