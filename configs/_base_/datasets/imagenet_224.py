# ImageNet-1K at 224 x 224 with RandAugment and random erasing, 128 images a GPU.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

data_root = 'data/imagenet'
train_dataloader = dict(batch_size=128)
