# Focal Transformer, Table 1; large, its drop path as base's: Sec. 4.1. The detectors' focal windows
# and drop path: Sec. 4.2. Large starts from ImageNet-22K; the name of its weights is ours.
focal = {
    size: dict(
        _delete_=True,
        type='FocalTransformer',
        arch=arch,
        focal_windows=(15, 13, 9, 7),
        drop_path_rate=rate,
        init_cfg=dict(type='Pretrained', checkpoint=f'checkpoints/{weights}.pth'),
    )
    for size, arch, rate, weights in (
        ('t', 'tiny', 0.2, 'focal-tiny-is224-ws7'),
        ('s', 'small', 0.3, 'focal-small-is224-ws7'),
        ('b', 'base', 0.5, 'focal-base-is224-ws7'),
        ('l', 'large', 0.5, 'focal-large-22k'),
    )
}
# That large's patch embeddings overlap is not in the text, but its totals in Table 5 tell.
focal['l']['use_conv_embed'] = True
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
