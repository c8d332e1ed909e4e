"""What is trained on is what is validated, tested, predicted and described: the same pixels, whoever asks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tubelet import run
from tubelet.data.load_clip import load_clip
from tubelet.evaluate.features import extract_features, read_features
from tubelet.evaluate.knn import pooled_features
from tubelet.evaluate.predict import predict
from tubelet.weights.load import load_model
from tubelet.weights.save import save_pretrained

SAMPLINGS = {
    "stride": ["data.stride=3"],
    "segments": ["data.sampling=segments"],
    "frames per second": ["data.fps=10", "data.pad=loop"],
}


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_the_same_pixels(tiny: Callable[..., DictConfig], videos: Path, tmp_path: Path, sampling: list[str]) -> None:
    settings = [f"data.test={videos}", "data.test_clips=2", "data.test_crops=3", "method.from_weights=false"]
    settings += [
        "encoder.final_norm=false",
        "preprocess.short_side=20",
        "preprocess.mean=[0.3,0.2,0.1]",
    ]
    cfg = tiny(*settings, *sampling, "trainer.max_epochs=1", method="finetune")
    run.main(cfg)
    (directory,) = Path("runs/try").iterdir()
    save_pretrained(load_model(directory), tmp_path / "hugging_face")
    config = OmegaConf.to_container(cfg, resolve=True)
    _, data, _ = run.build(config, *run.start_model(config), tmp_path)
    for model in (load_model(directory), load_model(tmp_path / "hugging_face")):
        for index, file in enumerate(sorted(videos.parent.glob("*.mp4"))):
            assert torch.equal(clip_of(data, "val", index), load_clip(file, model))
            predicted: list[Tensor] = []
            hook = model.register_forward_pre_hook(lambda _, clip, to=predicted: to.append(clip[0]))
            predict(model, file, clips=2, crops=3)
            hook.remove()
            # predict goes crop by crop, test sets clip by clip
            assert torch.equal(clip_of(data, "test", index), torch.stack(predicted, dim=1).flatten(0, 1))

    features, _, _ = read_features(extract_features(model, videos, tmp_path / "x.safetensors", batch_size=1))
    with torch.no_grad():
        clip = load_clip(videos.parent / "5.mp4", model)
        torch.testing.assert_close(features[5], pooled_features(model.encoder, clip)[0])


def clip_of(data, split: str, index: int) -> Tensor:
    """float [views,C,T,h,w], as a step of that stage gets it."""
    data.setup({"val": "validate", "test": "test"}[split])
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return torch.cat([batch.clip[batch.index == index] for batch in batches])
