"""Images to train on: from files, folders, URLs, TFDS, the Hub, or embedded."""

from kerassl.data.arrays import check_images, check_labels
from kerassl.data.batches import ImageBatches
from kerassl.data.image_data import ImageData
from kerassl.data.load import load

__all__ = ["ImageBatches", "ImageData", "check_images", "check_labels", "load"]
