"""The format of presets: what the files hold, and how they are verified.

It imports nothing of the rest of `kerassl.presets`. Whatever a preset may
contain is defined here; saving, loading and publishing are outside.

| Module | Holds |
|---|---|
| `info` | the fields of `kerassl.json`, their checks, and older schemas |
| `architecture` | what graphs and backbones have in common |
| `core_layers` | the layers of graphs, their arguments and weights |
| `graph`, `backbones`, `dinov2` | what `config.json` may describe |
| `kinds` | the KerasHub backbones, by their class |
| `positions` | a ViT's positions for images of other sizes |
| `hdf5`, `weights` | the reader of `model.weights.h5` |
| `verify` | all checks of a folder, in order |
| `build` | from a verified preset to an encoder |
"""
