import logging
import pickle
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from small_videos import VIDEO_FRAMES, video_frame, write_video
from tubelet.clip import ClipGrid
from tubelet.data import reader as reader_module
from tubelet.data.dataset import EvaluationVideos, TrainingVideos
from tubelet.data.manifest import Manifest
from tubelet.data.reader import (
    VideoError,
    available_readers,
    check_reader,
    count_frames,
    open_video,
    read_frames,
)
from tubelet.data.reader.decord import DecordVideo
from tubelet.data.reader.pyav import PyavVideo
from tubelet.data.reader.torchcodec import TorchcodecVideo
from tubelet.data.sampling import Sampling


@pytest.mark.parametrize("reader", available_readers())
def test_frames_are_those_asked_for(videos, reader):
    numbers = [3, 17, 17, 39, 0]
    frames = read_frames(videos.parent / "1.mp4", numbers, reader)
    assert frames.dtype == torch.uint8
    assert frames.shape == (5, 80, 64, 3)
    expected = np.stack([video_frame(1, n) for n in numbers])
    # away from the edges between the greys; neighbouring frames differ by 5
    difference = np.abs(frames.numpy()[:, :60, :28].astype(int) - expected[:, :60, :28])
    assert difference.max() <= 2


@pytest.mark.parametrize("reader", available_readers())
def test_frames_come_in_the_order_asked_for(videos, reader):
    """As the clips of a segmented test video: each frame once, but not in the order of the file."""
    numbers = [0, 10, 20, 30, 5, 15, 25, 35]
    frames = read_frames(videos.parent / "0.mp4", numbers, reader)
    assert frames[:, 4, 4].float().mean(1).tolist() == pytest.approx([20 + 5 * n for n in numbers], abs=2)


@pytest.mark.parametrize("reader", ["auto", *available_readers()])
def test_counts(videos, reader):
    assert [count_frames(videos.parent / f"{i}.mp4", reader) for i in range(6)] == VIDEO_FRAMES
    with open_video(videos.parent / "0.mp4", reader) as video:
        assert video.fps == pytest.approx(24)


@pytest.mark.parametrize("reader", ["auto", *available_readers()])
def test_what_cannot_be_read_says_why(videos, tmp_path, reader):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    whole = (videos.parent / "0.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name, reason in {
        "none.mp4": "no such file",
        "empty.mp4": "is empty",
        ".": "is a directory without numbered images",
        "text.mp4": ".",
        "cut.mp4": ".",
    }.items():
        with pytest.raises(VideoError, match=reason) as error:
            read_frames(tmp_path / name, [0], reader)
        assert error.value.path == str(tmp_path / name)
        assert error.value.path in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(VideoError, match=r"5.mp4: .*has 5 frames, asked for 4 to 5"):
        read_frames(videos.parent / "5.mp4", [4, 5], reader)


def test_auto_goes_on_to_the_next_reader(tmp_path, monkeypatch):
    def cannot(path):
        raise VideoError(path, "cannot be searched")

    write_video(tmp_path / "narrow.mp4", [np.full((64, 48, 3), 10 * i, np.uint8) for i in range(8)])
    monkeypatch.setitem(reader_module._OPENERS, "pyav_seek", cannot)
    frames = read_frames(tmp_path / "narrow.mp4", [6, 1])  # 48 wide: more than decord 0.6 can do
    assert frames.shape == (2, 64, 48, 3)
    assert frames.float().mean((1, 2, 3)).tolist() == pytest.approx([60, 10], abs=2)


@pytest.mark.parametrize("reader", ["auto", *available_readers()])
def test_a_colon_in_a_name(videos, tmp_path, monkeypatch, reader):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "12:30:00.mp4").write_bytes((videos.parent / "0.mp4").read_bytes())
    assert len(read_frames("12:30:00.mp4", [0, 1], reader)) == 2


def test_unknown_reader(videos):
    with pytest.raises(ValueError, match=r"auto or one of .*, got 'opencv'"):
        open_video(videos.parent / "0.mp4", "opencv")


def test_error_survives_the_way_out_of_a_worker():
    error = VideoError("a.mp4", "is empty")
    assert str(pickle.loads(pickle.dumps(error))) == "a.mp4: is empty"
    assert str(VideoError("text alone")) == "text alone"


def rotated(path, quarters):
    """The file with the display matrix of a phone held otherwise: `quarters` turns clockwise."""
    content = bytearray(path.read_bytes())
    a, b = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    matrix = content.index(b"tkhd") + 4 + 40  # of a version 0 box
    content[matrix : matrix + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


@pytest.mark.parametrize("reader", available_readers())
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_phone_videos_are_upright(tmp_path, reader, quarters):
    image = np.zeros((96, 128, 3), np.uint8)
    image[:48, :64] = 200  # bright top left
    write_video(tmp_path / "phone.mp4", [image] * 5)
    rotated(tmp_path / "phone.mp4", quarters)
    frames = read_frames(tmp_path / "phone.mp4", [0, 4], reader)
    expected = torch.from_numpy(np.rot90(image, -quarters).copy())
    assert frames.shape[1:] == expected.shape
    assert (frames.int() - expected.int()).abs().float().mean() < 3


@pytest.mark.parametrize("reader", available_readers())
def test_odd_sizes_variable_rates_and_single_frames(tmp_path, reader):
    frames = [np.full((75, 101, 3), 20 + 10 * n, np.uint8) for n in range(20)]
    with av.open(str(tmp_path / "vfr.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)  # which has no quarrel with odd sizes
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 75, 101, "yuv420p", 2_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        for n, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = 40 * n + 300 * (n > 9), Fraction(1, 1000)  # a gap in the middle
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    read = read_frames(tmp_path / "vfr.mkv", [9, 10, 19], reader)
    assert read.shape == (3, 75, 101, 3)
    assert read.float().mean((1, 2, 3)).tolist() == pytest.approx([110, 120, 210], abs=3)
    write_video(tmp_path / "one.mp4", [np.full((80, 96, 3), 90, np.uint8)])
    assert read_frames(tmp_path / "one.mp4", [0, 0], reader).float().mean().item() == pytest.approx(90, abs=3)


@pytest.mark.parametrize("reader", ["auto", *available_readers()])
def test_a_directory_of_numbered_images(tmp_path, reader):
    for number in range(12):
        Image.fromarray(np.full((4, 6, 3), 10 * number, np.uint8)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden9.png").touch()
    with open_video(tmp_path, reader) as video:
        assert video.num_frames == 12
        assert video.frames([2, 10, 2])[:, 0, 0, 0].tolist() == [20, 100, 20]  # 10 after 9, not after 1
        with pytest.raises(VideoError, match="has 12 frames, asked for 12 to 12"):
            video.frames([12])
    (tmp_path / "frame3.png").write_text("not an image")
    with pytest.raises(VideoError, match=r"frame3.png: cannot identify"):
        read_frames(tmp_path, [3], reader)
    Image.new("RGB", (8, 8)).save(tmp_path / "frame4.png")
    with pytest.raises(VideoError, match=r"images differ in size: \[\(4, 6\), \(8, 8\)\]"):
        read_frames(tmp_path, [4, 5], reader)
    (tmp_path / "frame07.png").touch()
    with pytest.raises(VideoError, match="have the same number"):
        read_frames(tmp_path, [0], reader)
    (tmp_path / "frame07.png").rename(tmp_path / "flow_7.png")
    with pytest.raises(VideoError, match=r"holds 2 series of images, flow_\* and frame\*"):
        read_frames(tmp_path, [0], reader)


@pytest.mark.parametrize("name", ["0.png", "0.tif"])
def test_grey_frames_of_16_bits_keep_their_levels(tmp_path, name):
    levels = np.array([[0, 256, 1000], [32768, 65535, 255]], np.uint16)
    Image.fromarray(levels).save(tmp_path / name)
    assert read_frames(tmp_path, [0])[0, :, :, 0].tolist() == [[0, 1, 3], [128, 255, 0]]
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "1.tif")
    if name == "0.tif":
        with pytest.raises(VideoError, match=r"1.tif: holds floating-point numbers"):
            read_frames(tmp_path, [1])


def test_images_are_upright(tmp_path):
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, :24] = 200  # bright on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a quarter clockwise to be upright
    Image.fromarray(image).save(tmp_path / "0.jpg", exif=exif)
    frame = read_frames(tmp_path, [0])[0]
    assert frame.shape == (48, 32, 3)
    assert frame[:20].float().mean() > 190 > 10 > frame[-20:].float().mean()


def test_auto_says_once_what_it_takes_and_why_not_the_others(monkeypatch, caplog):
    monkeypatch.setattr(reader_module, "why_not", lambda name: "no library" if "pyav" in name else None)
    reader_module._announce_auto.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            check_reader("auto")
    assert [record.message for record in caplog.records] == [
        "videos are read with decord; pyav_seek cannot be loaded: no library"
    ]
    with pytest.raises(ValueError, match="reader pyav_seek cannot be loaded: no library"):
        check_reader("pyav_seek")
    monkeypatch.setattr(reader_module, "why_not", lambda name: "no library")
    reader_module._announce_auto.cache_clear()
    with pytest.raises(ValueError, match="no video reader; pyav_seek cannot be loaded: no library; decord"):
        check_reader("auto")
    reader_module._announce_auto.cache_clear()


@pytest.mark.parametrize("reader", available_readers())
def test_a_verified_manifest_spares_the_containers_word(videos, monkeypatch, reader):
    """Training takes the number of frames and the rate from the record."""

    def asked(self):
        raise AssertionError("the container was asked how many frames it has")

    for kind in (DecordVideo, TorchcodecVideo, PyavVideo):
        monkeypatch.setattr(kind, "num_frames", property(asked))
    grid = ClipGrid(frames=4, height=32, width=32, tubelet=2, patch=8)
    columns = {"path": [str(videos.parent / "0.mp4")], "num_frames": [40], "fps": [24.0], "reader": [reader]}
    manifest = Manifest.from_columns(videos.parent, columns)
    assert TrainingVideos(manifest, grid, Sampling(), seed=0)[0, 0].clips.shape == (1, 3, 4, 32, 32)
    assert EvaluationVideos(manifest, grid, Sampling(), seed=0)[0, 0].clips.shape == (1, 3, 4, 32, 32)
