# The narrow backbones of the demo's detectors and classifiers.
narrow = dict(dims=[32, 64, 128, 256], heads=[1, 2, 4, 8], depths=[1, 1, 2, 1])
narrow_rmt = dict(mlp_ratios=[3, 3, 3, 3], decay_range=[(2, 6), (2, 6), (2, 8), (2, 8)], **narrow)
