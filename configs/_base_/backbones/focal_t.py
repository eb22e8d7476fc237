focal_t = dict(
    _delete_=True,
    type='FocalTransformer',
    arch='tiny',
    focal_windows=(15, 13, 9, 7),
    drop_path_rate=0.2,
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/focal-tiny-is224-ws7.pth'),
)
focal_t_dims = [96, 192, 384, 768]
# As Swin's: besides norms, which the schedules name, no table of position biases decays.
focal_decay = dict(paramwise_cfg=dict(custom_keys={'.table': dict(decay_mult=0.0)}))
