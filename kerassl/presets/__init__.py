"""Presets: encoders to publish, and to load from anybody without risk."""

from kerassl.presets.convert import convert_checkpoint
from kerassl.presets.hub import (
    HubError,
    Publication,
    Upload,
    pull,
    upload_preset,
)
from kerassl.presets.info import FILES, PresetError, PresetInfo
from kerassl.presets.load import list_presets, load_encoder, preset_path
from kerassl.presets.published import check_encoder
from kerassl.presets.save import save_preset
from kerassl.presets.verify import verify_preset

__all__ = [
    "FILES",
    "HubError",
    "PresetError",
    "PresetInfo",
    "Publication",
    "Upload",
    "check_encoder",
    "convert_checkpoint",
    "list_presets",
    "load_encoder",
    "preset_path",
    "pull",
    "save_preset",
    "upload_preset",
    "verify_preset",
]
