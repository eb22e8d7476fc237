# ADE20K, crops of 512 x 512; 8 GPUs with 2 each are a batch of 16.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

train_dataloader = dict(batch_size=2)
