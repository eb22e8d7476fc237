# RMT, Table 10; drop path: Sec. 4.1, as its detectors and segmenters have it, too. The Swin ones
# are Table 6's, of which no weights are published: their names and drop path (tiny's and small's)
# are ours.
rmt = {
    size: dict(
        _delete_=True,
        type='RMT',
        arch=arch,
        drop_path_rate=rate,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=f'checkpoints/{weights}.pth'),
    )
    for size, arch, rate, weights in (
        ('t', 'tiny', 0.1, 'RMT-T'),
        ('s', 'small', 0.15, 'RMT-S'),
        ('b', 'base', 0.4, 'RMT-B'),
        ('l', 'large', 0.5, 'RMT-L'),
        ('swin_t', 'swin_tiny', 0.1, 'RMT-Swin-T'),
        ('swin_s', 'swin_small', 0.15, 'RMT-Swin-S'),
    )
}
rmt_dims = dict(
    t=[64, 128, 256, 512],
    s=[64, 128, 256, 512],
    b=[80, 160, 320, 512],
    l=[112, 224, 448, 640],
    swin_t=[96, 192, 384, 768],
    swin_s=[96, 192, 384, 768],
)
