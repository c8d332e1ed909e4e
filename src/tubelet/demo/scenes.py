"""The names of the scenes and their numbers of classes, for a config: without what renders them."""

CLASSES = {"motions": 8, "small": 6, "camera": 8, "time": 4}


def check_scene(scene: str) -> None:
    """Raises ValueError if there is no such scene."""
    if scene not in CLASSES:
        raise ValueError(f"data.scene must be one of {', '.join(CLASSES)}, got '{scene}'")
