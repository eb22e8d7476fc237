# Overlapping patch embeddings, as the UperNets start from.
_base_ = './cls_focal_t_in1k.py'

model = dict(backbone=dict(use_conv_embed=True))
