"""Which manifests of a data set each stage reads. Imports nothing: the config checker reads it, too."""

from __future__ import annotations

STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
"""Stage -> splits. The first is needed; `fit` can do without validation."""
