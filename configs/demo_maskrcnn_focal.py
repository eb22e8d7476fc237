# What `make demo FAMILY=focal` runs: a narrow Focal Transformer, trained from scratch.
_base_ = ['./maskrcnn_focal_t_1x.py', '_base_/demo_detector.py']

model = dict(
    backbone=dict(arch=dict(_delete_=True, **_base_.shallow), drop_path_rate=0.0, init_cfg=None),
    **_base_.narrow_detector,
)
demo = dict(max_iters=1400)
optim_wrapper = _base_.narrow_optim_wrapper
