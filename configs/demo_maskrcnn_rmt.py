# What `make demo FAMILY=rmt` runs: a narrow RMT, trained from scratch. Two scenes a process are too
# few for batch normalisation.
_base_ = ['./maskrcnn_rmt_t_1x.py', '_base_/demo_detector.py']

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.shallow_rmt),
        drop_path_rate=0.0,
        norm_cfg=dict(type='GN', num_groups=4),
        init_cfg=None,
    ),
    **_base_.narrow_detector,
)
optim_wrapper = _base_.narrow_optim_wrapper
