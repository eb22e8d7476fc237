# RMT, Appendix B: as DeiT, whose averages hold the statistics of batch normalisation, too, and on
# all GPUs those of the first. Repeated augmentation is not in its list.
_base_ = './adamw_cls_300e_warmup5.py'

custom_hooks = [
    dict(type='EMAHook', momentum=4e-5, update_buffers=True, priority='ABOVE_NORMAL'),
]
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
