# The published detectors have no norms on the backbone's outputs.
vil_s = dict(
    _delete_=True,
    type='VisionLongformer',
    arch='small',
    out_norm=None,
    drop_path_rate=0.2,
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/ViL-S-RPB.pth'),
)
vil_s_dims = [96, 192, 384, 768]
