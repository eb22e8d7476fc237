# RegionViT, Table 2; drop path: Appendix A.2 and A.3. 'Plus' starts from the weights published for
# windows of 7.
regionvit = dict(
    s=dict(
        _delete_=True,
        type='RegionViT',
        arch='small',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RegionViT-S.pth'),
    ),
    b=dict(
        _delete_=True,
        type='RegionViT',
        arch='base',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RegionViT-B.pth'),
    ),
)
regionvit_dims = dict(s=[96, 192, 384, 768], b=[128, 256, 512, 1024])
