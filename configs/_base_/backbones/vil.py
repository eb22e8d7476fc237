# ViL, Table 1; medium and base are the deep ones. Drop path: of its published Mask R-CNNs, 1x;
# other configs say where theirs differs. The published detectors have no norms on the backbone's
# outputs.
vil = dict(
    t=dict(
        _delete_=True,
        type='VisionLongformer',
        arch='tiny',
        out_norm=None,
        drop_path_rate=0.05,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ViL-T-RPB.pth'),
    ),
    s=dict(
        _delete_=True,
        type='VisionLongformer',
        arch='small',
        out_norm=None,
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ViL-S-RPB.pth'),
    ),
    m=dict(
        _delete_=True,
        type='VisionLongformer',
        arch='medium_deep',
        out_norm=None,
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ViL-M-RPB.pth'),
    ),
    b=dict(
        _delete_=True,
        type='VisionLongformer',
        arch='base_deep',
        out_norm=None,
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ViL-B-RPB.pth'),
    ),
)
vil_dims = dict(
    t=[48, 96, 192, 384],
    s=[96, 192, 384, 768],
    m=[96, 192, 384, 768],
    b=[96, 192, 384, 768],
)
