# SPDX-License-Identifier: Apache-2.0
"""Configurations of Rotated FCOS for the two lines of MMRotate. Each builds on the one that MMRotate installs.

MMRotate 1.x reads them with mmengine, which takes ``mmrotate::`` as the folder of installed configurations; 0.3.x
with mmcv, which runs the file, so that there the folder is looked up in the installed package.
"""

from __future__ import annotations


def config_1x(root: str, classes: tuple[str, ...], size: int, train: str, val: str) -> str:
    """For MMRotate 1.0.0rc1 and its dev-1.x."""
    return f"""# Rotated FCOS on boxes written by vision3d, for MMRotate 1.x:
#   python tools/train.py rotated_fcos_1x.py
_base_ = 'mmrotate::rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py'

data_root = {root + "/"!r}
metainfo = dict(classes={classes!r}, palette={palette(len(classes))!r})
model = dict(bbox_head=dict(num_classes={len(classes)}))

load_boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
]
train_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    *load_boxes,
    dict(type='mmdet.Resize', scale=({size}, {size}), keep_ratio=True),
    dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='mmdet.PackDetInputs'),
]
val_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=({size}, {size}), keep_ratio=True),
    *load_boxes,
    dict(
        type='mmdet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file={train + "/annfiles/"!r},
        data_prefix=dict(img_path={train + "/images/"!r}),
        pipeline=train_pipeline))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file={val + "/annfiles/"!r},
        data_prefix=dict(img_path={val + "/images/"!r}),
        pipeline=val_pipeline))
test_dataloader = val_dataloader
"""


def config_0x(root: str, classes: tuple[str, ...], size: int, train: str, val: str) -> str:
    """For MMRotate 0.3.x."""
    return f"""# Rotated FCOS on boxes written by vision3d, for MMRotate 0.3.x:
#   python tools/train.py rotated_fcos_0x.py
from os.path import dirname, join

from mmrotate import __file__ as installed

_base_ = [join(dirname(installed), '.mim/configs/rotated_fcos/rotated_fcos_r50_fpn_1x_dota_le90.py')]
del dirname, join, installed

angle_version = 'le90'
data_root = {root + "/"!r}
classes = {classes!r}
model = dict(bbox_head=dict(num_classes={len(classes)}))

img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RResize', img_scale=({size}, {size})),
    dict(
        type='RRandomFlip',
        flip_ratio=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
        version=angle_version),
    dict(type='Normalize', **img_norm_cfg),
    dict(type='Pad', size_divisor=32),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_bboxes', 'gt_labels']),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug',
        img_scale=({size}, {size}),
        flip=False,
        transforms=[
            dict(type='RResize'),
            dict(type='Normalize', **img_norm_cfg),
            dict(type='Pad', size_divisor=32),
            dict(type='DefaultFormatBundle'),
            dict(type='Collect', keys=['img']),
        ]),
]
data = dict(
    train=dict(
        classes=classes,
        ann_file=data_root + {train + "/annfiles/"!r},
        img_prefix=data_root + {train + "/images/"!r},
        pipeline=train_pipeline),
    val=dict(
        classes=classes,
        ann_file=data_root + {val + "/annfiles/"!r},
        img_prefix=data_root + {val + "/images/"!r},
        pipeline=test_pipeline),
    test=dict(
        classes=classes,
        ann_file=data_root + {val + "/annfiles/"!r},
        img_prefix=data_root + {val + "/images/"!r},
        pipeline=test_pipeline))
"""


def palette(count: int) -> list[tuple[int, int, int]]:
    """Colours that differ, one per class."""
    return [(37 * k % 256, 91 * k % 256 ^ 128, (151 * k + 64) % 256) for k in range(count)]
