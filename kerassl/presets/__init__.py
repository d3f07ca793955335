"""Presets: encoders to publish, and to load safely from untrusted authors."""

from kerassl.presets.convert import convert_checkpoint
from kerassl.presets.download import download_preset
from kerassl.presets.exports import export
from kerassl.presets.extract import check_encoder
from kerassl.presets.format.info import PresetError, PresetInfo
from kerassl.presets.format.verify import verify_preset
from kerassl.presets.hub_calls import HubError
from kerassl.presets.load import list_presets, load_encoder, preset_path
from kerassl.presets.publish import Publication, Upload, upload_preset
from kerassl.presets.save import save_preset

__all__ = [
    "HubError",
    "PresetError",
    "PresetInfo",
    "Publication",
    "Upload",
    "check_encoder",
    "convert_checkpoint",
    "download_preset",
    "export",
    "list_presets",
    "load_encoder",
    "preset_path",
    "save_preset",
    "upload_preset",
    "verify_preset",
]
