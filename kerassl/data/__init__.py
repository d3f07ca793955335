"""Images for training: TFDS, folders, arrays and an embedded data set."""

from kerassl.data.arrays import check_images, check_labels
from kerassl.data.batches import ImageBatches
from kerassl.data.load import ImageData, load

__all__ = ["ImageBatches", "ImageData", "check_images", "check_labels", "load"]
