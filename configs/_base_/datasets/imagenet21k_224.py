# ImageNet-21K, augmented as ImageNet-1K. It has no validation images: training does without, and
# tools/test.py takes what was kept back in val/.
_base_ = './imagenet_224_repeated.py'

data_root = 'data/imagenet21k'
data_preprocessor = dict(num_classes=21841)
train_dataloader = dict(dataset=dict(type='ImageNet21k', data_root='data/imagenet21k'))
val_dataloader = val_evaluator = None
test_dataloader = dict(
    dataset=dict(type='ImageNet21k', data_root='data/imagenet21k', split='', data_prefix='val'),
)
