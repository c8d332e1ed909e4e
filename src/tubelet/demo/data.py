"""`data=demo`: the loaders over the videos of a scene."""

from __future__ import annotations

from typing import Any

from tubelet.data.datamodule import VideoDataModule
from tubelet.demo.render import check_scene


class DemoVideos(VideoDataModule):
    """Keys as of VideoDataModule, and `scene`, which the config puts into their paths. Raises ValueError if there is no
    such scene.
    """

    def __init__(self, scene: str, **keys: Any) -> None:
        check_scene(scene)
        super().__init__(**keys)
