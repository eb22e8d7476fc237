rmt_s = dict(
    _delete_=True,
    type='RMT',
    arch='small',
    drop_path_rate=0.15,
    norm_eval=True,
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RMT-S.pth'),
)
rmt_s_dims = [64, 128, 256, 512]
