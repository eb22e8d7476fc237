# What the demo's classifiers share.
_base_ = './demo_narrow.py'

demo = dict(max_iters=300, batch_size=64, warmup=30, log_interval=50)
