"""The model cards in presets/, as `kerassl.presets` writes them today.

A preset's kerassl.json and presets/index.json contain a card's hash, so both
change with it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from results import PRESETS, read_json

from kerassl.presets.card import card
from kerassl.presets.format.info import CARD, INFO, PresetInfo
from kerassl.presets.load import INDEX


def pages() -> dict[Path, str]:
    """Returns the path and the text of every file."""
    index = read_json(PRESETS / INDEX)
    found = {}
    for name, entry in index["presets"].items():
        path = PRESETS / name / INFO
        if not path.exists():  # It is on the Hub only.
            continue
        fields = read_json(path)
        text = card(PresetInfo.from_dict(fields))
        fields["files"][CARD] = _entry(text)
        entry["info"]["files"][CARD] = _entry(text)
        found[path.with_name(CARD)] = text
        found[path] = _json(fields)
    return found | {PRESETS / INDEX: _json(index)}


def _entry(text: str) -> dict[str, Any]:
    content = text.encode()
    digest = hashlib.sha256(content).hexdigest()
    return {"sha256": digest, "size": len(content)}


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2) + "\n"
