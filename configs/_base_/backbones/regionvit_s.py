regionvit_s = dict(
    _delete_=True,
    type='RegionViT',
    arch='small',
    drop_path_rate=0.2,
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RegionViT-S.pth'),
)
regionvit_s_dims = [96, 192, 384, 768]
