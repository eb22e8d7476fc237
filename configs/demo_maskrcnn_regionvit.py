# The README's first command: run with --demo. A narrow RegionViT, trained from scratch.
_base_ = './maskrcnn_regionvit_s_1x.py'

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            stem='3-conv',
            dims=[32, 64, 128, 256],
            heads=[1, 2, 4, 8],
            depths=[1, 1, 2, 1],
            window_size=7,
        ),
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=64, roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(in_channels=64, conv_out_channels=64),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=1.0))
demo = dict(max_iters=1200, batch_size=4, warmup=100, log_interval=50)
