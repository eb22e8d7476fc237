# Focal Transformer, Table 1; large, its drop path as base's: Sec. 4.1. The detectors' focal windows
# and drop path: Sec. 4.2.
focal = dict(
    t=dict(
        _delete_=True,
        type='FocalTransformer',
        arch='tiny',
        focal_windows=(15, 13, 9, 7),
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/focal-tiny-is224-ws7.pth'),
    ),
    s=dict(
        _delete_=True,
        type='FocalTransformer',
        arch='small',
        focal_windows=(15, 13, 9, 7),
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/focal-small-is224-ws7.pth'),
    ),
    b=dict(
        _delete_=True,
        type='FocalTransformer',
        arch='base',
        focal_windows=(15, 13, 9, 7),
        drop_path_rate=0.5,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/focal-base-is224-ws7.pth'),
    ),
    # From ImageNet-22K; the name is ours. That its patch embeddings overlap is not in the text, but
    # the detectors' totals in Table 5 tell.
    l=dict(
        _delete_=True,
        type='FocalTransformer',
        arch='large',
        focal_windows=(15, 13, 9, 7),
        use_conv_embed=True,
        drop_path_rate=0.5,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/focal-large-22k.pth'),
    ),
)
focal_dims = dict(
    t=[96, 192, 384, 768],
    s=[96, 192, 384, 768],
    b=[128, 256, 512, 1024],
    l=[196, 392, 784, 1568],
)
# As Swin's: neither norms nor tables of position biases decay.
focal_decay = dict(
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'.table': dict(decay_mult=0.0)})
)
