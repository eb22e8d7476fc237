# ViL, Table 1; medium and base are the deep ones. Drop path: of its published Mask R-CNNs, 1x;
# other configs say where theirs differs. The published detectors have no norms on the backbone's
# outputs.
vil = {
    size: dict(
        _delete_=True,
        type='VisionLongformer',
        arch=arch,
        out_norm=None,
        drop_path_rate=rate,
        init_cfg=dict(type='Pretrained', checkpoint=f'checkpoints/{weights}.pth'),
    )
    for size, arch, rate, weights in (
        ('t', 'tiny', 0.05, 'ViL-T-RPB'),
        ('s', 'small', 0.2, 'ViL-S-RPB'),
        ('m', 'medium_deep', 0.2, 'ViL-M-RPB'),
        ('b', 'base_deep', 0.3, 'ViL-B-RPB'),
    )
}
vil_dims = dict(
    t=[48, 96, 192, 384],
    s=[96, 192, 384, 768],
    m=[96, 192, 384, 768],
    b=[96, 192, 384, 768],
)
