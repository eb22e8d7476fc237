# What `make demo` runs: a narrow RegionViT, trained from scratch.
_base_ = ['./maskrcnn_regionvit_s_1x.py', '_base_/demo_detector.py']

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, stem='3-conv', window_size=7, **_base_.narrow),
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    **_base_.narrow_detector,
)
optim_wrapper = _base_.narrow_optim_wrapper
