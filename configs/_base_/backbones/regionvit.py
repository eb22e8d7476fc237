# RegionViT, Table 2; drop path: Appendix A.2 and A.3. 'Plus' starts from the weights published for
# windows of 7.
regionvit = {
    size: dict(
        _delete_=True,
        type='RegionViT',
        arch=arch,
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=f'checkpoints/{weights}.pth'),
    )
    for size, arch, weights in (('s', 'small', 'RegionViT-S'), ('b', 'base', 'RegionViT-B'))
}
regionvit_dims = dict(s=[96, 192, 384, 768], b=[128, 256, 512, 1024])
