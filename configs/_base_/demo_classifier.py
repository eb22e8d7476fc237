# What the demo's classifiers share.
narrow = dict(dims=[32, 64, 128, 256], heads=[1, 2, 4, 8], depths=[1, 1, 2, 1])
demo = dict(max_iters=300, batch_size=64, warmup=30, log_interval=50)
