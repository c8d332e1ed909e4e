"""Real video files whose frames can be told apart. (Not in conftest.py: of that name there are several.)"""

from pathlib import Path

import av
import numpy as np

VIDEO_FRAMES = [40, 40, 40, 40, 40, 5]


def video_frame(video: int, number: int) -> np.ndarray:
    """uint8 [H,W,3]: grey 20 + 5 * number, 30 lighter on the right; a stripe of grey 40 * video at the bottom."""
    height, width = (48, 64) if video % 2 == 0 else (80, 64)
    image = np.full((height, width, 3), 20 + 5 * number, np.uint8)
    image[:, width // 2 :] += 30
    image[-16:] = 40 * video
    return image


def write_video(path: Path, frames: list[np.ndarray], fps: int = 24, codec: str = "libx264") -> None:
    """H.264 with B-frames and a key frame every 12, or what another encoder makes of it by itself."""
    options = {"crf": "10", "g": "12", "bf": "2"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
