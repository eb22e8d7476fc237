# What `make demo` runs: a narrow RegionViT, trained from scratch. Of the paper's variants it takes
# those that learn from fewest scenes: one convolution as the stem, whose output is not normalised,
# and a PEG. A window of 8 divides the maps of a scene.
_base_ = ['./maskrcnn_regionvit_s_1x.py', '_base_/demo_detector.py']

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, stem='1-conv', window_size=8, **_base_.shallow),
        peg=True,
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    **_base_.narrow_detector,
)
optim_wrapper = _base_.narrow_optim_wrapper
