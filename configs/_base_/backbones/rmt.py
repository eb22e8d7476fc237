# RMT, Table 10; drop path: Sec. 4.1, as its detectors and segmenters have it, too. The Swin ones
# are Table 6's, of which no weights are published: their names and drop path (tiny's and small's)
# are ours.
rmt = dict(
    t=dict(
        _delete_=True,
        type='RMT',
        arch='tiny',
        drop_path_rate=0.1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RMT-T.pth'),
    ),
    s=dict(
        _delete_=True,
        type='RMT',
        arch='small',
        drop_path_rate=0.15,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RMT-S.pth'),
    ),
    b=dict(
        _delete_=True,
        type='RMT',
        arch='base',
        drop_path_rate=0.4,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RMT-B.pth'),
    ),
    l=dict(
        _delete_=True,
        type='RMT',
        arch='large',
        drop_path_rate=0.5,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RMT-L.pth'),
    ),
    swin_t=dict(
        _delete_=True,
        type='RMT',
        arch='swin_tiny',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RMT-Swin-T.pth'),
    ),
    swin_s=dict(
        _delete_=True,
        type='RMT',
        arch='swin_small',
        drop_path_rate=0.15,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RMT-Swin-S.pth'),
    ),
)
rmt_dims = dict(
    t=[64, 128, 256, 512],
    s=[64, 128, 256, 512],
    b=[80, 160, 320, 512],
    l=[112, 224, 448, 640],
    swin_t=[96, 192, 384, 768],
    swin_s=[96, 192, 384, 768],
)
