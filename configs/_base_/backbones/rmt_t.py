rmt_t = dict(
    _delete_=True,
    type='RMT',
    arch='tiny',
    drop_path_rate=0.1,
    norm_eval=True,
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RMT-T.pth'),
)
rmt_t_dims = [64, 128, 256, 512]
