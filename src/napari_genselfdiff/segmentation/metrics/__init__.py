"""Scores of one image, and their mean over images.

Scores are always computed per image, never per patch; distances are between points of the image, never
between its rows. What a score is of an image without any object is defined, and stands in its docstring.
``docs/metrics.md`` says the same to users.
"""

from napari_genselfdiff.segmentation.metrics.boundaries import distance_scores, hausdorff, hd95
from napari_genselfdiff.segmentation.metrics.images import mean_scores, segmentation_scores
from napari_genselfdiff.segmentation.metrics.object_hausdorff import object_hausdorff
from napari_genselfdiff.segmentation.metrics.objects import (
    aji,
    instance_scores,
    object_dice,
    object_f1,
    panoptic_quality,
)
from napari_genselfdiff.segmentation.metrics.pixels import class_scores

__all__ = [
    "aji",
    "class_scores",
    "distance_scores",
    "hausdorff",
    "hd95",
    "instance_scores",
    "mean_scores",
    "object_dice",
    "object_f1",
    "object_hausdorff",
    "panoptic_quality",
    "segmentation_scores",
]
