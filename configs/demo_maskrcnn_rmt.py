# What `make demo FAMILY=rmt` runs: a narrow RMT, trained from scratch.
_base_ = ['./maskrcnn_rmt_t_1x.py', '_base_/demo_detector.py']

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            mlp_ratios=[3, 3, 3, 3],
            decay_range=[(2, 6), (2, 6), (2, 8), (2, 8)],
            **_base_.narrow,
        ),
        drop_path_rate=0.0,
        norm_eval=False,
        init_cfg=None,
    ),
    **_base_.narrow_detector,
)
optim_wrapper = _base_.narrow_optim_wrapper
