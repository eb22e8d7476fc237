# Tables 8 and A5: no regional tokens. No such weights are published; the name is ours.
_base_ = './retinanet_regionvit_s_1x.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, base='small', regional=False),
        init_cfg=dict(checkpoint='checkpoints/RegionViT-S-without-regional.pth'),
    )
)
