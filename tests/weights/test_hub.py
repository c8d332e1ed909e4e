"""`tubelet push` and `load_model("owner/name@revision")` against a stand-in of the hub's HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_stand_in import TOKEN, Hub, running

from tubelet.encoders.vivit import FactorisedViViT
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.weights.hub import push
from tubelet.weights.load import load_masking, load_model

SMALL = {"image_size": 32, "num_frames": 4, "dim": 24, "depth": 1, "temporal_depth": 1, "num_heads": 2}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def classifier(classes: int = 3) -> VideoClassifier:
    return VideoClassifier(FactorisedViViT(**SMALL), classes, pool="cls").eval()


def test_a_model_goes_there_and_comes_back(hub: Hub) -> None:
    model = classifier()
    address, sizes = push(model, "me/tiny@v1", "# tiny")
    assert address == f"{hub.url}/me/tiny/commit/{1:040x}"
    assert sorted(sizes) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    there = hub.repositories["me/tiny"]
    assert there.private
    assert set(there.commits[-1]) - {".gitattributes"} == set(sizes)
    assert there.tags == {"v1": 1}
    push(classifier(5), "me/tiny", "# tiny, another")
    clip = torch.randn(1, 3, 4, 32, 32)
    first = load_model("me/tiny@v1")
    assert torch.equal(first(clip), model(clip))
    assert torch.equal(load_model(f"me/tiny@{1:040x}")(clip), model(clip))
    assert load_model("me/tiny").num_classes == 5
    with pytest.raises(ValueError, match=r"me/tiny at revision v9 .* could not be fetched"):
        load_model("me/tiny@v9")
    assert there.commits[-1]["README.md"] == b"# tiny"  # a card that is there stays
    push(model, "me/tiny", "# mine", keep_card=False)
    assert there.commits[-1]["README.md"] == b"# mine"


def test_a_masked_model_keeps_its_masking(hub: Hub) -> None:
    masking = {"_target_": "tubelet.masking.tube", "_partial_": True, "ratio": 0.75}
    push(MaskedModel(FactorisedViViT(**SMALL)), "me/masked", "", masking=masking)
    assert load_masking("me/masked").keywords == {"ratio": 0.75}


def test_a_dry_run_asks_nothing(hub: Hub) -> None:
    address, sizes = push(classifier(), "me/tiny", "# tiny", dry_run=True)
    assert address == f"{hub.url}/me/tiny"
    assert len(sizes) == 4
    assert hub.asked == []


def test_nothing_becomes_public_by_mistake(hub: Hub) -> None:
    push(classifier(), "me/open", "", public=True)
    assert not hub.repositories["me/open"].private
    with pytest.raises(ValueError, match="me/open exists and is public: pass --public"):
        push(classifier(), "me/open", "")
    assert len(hub.repositories["me/open"].commits) == 2
    push(classifier(), "me/open@v1", "", public=True)
    with pytest.raises(ValueError, match="me/open has a tag v1 already"):
        push(classifier(), "me/open@v1", "", public=True)


def test_what_the_hub_refuses_is_one_message(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tiny", "me/tiny/x", "me/tiny@"):
        with pytest.raises(ValueError, match=f"'{name}' is no name of a repository: owner/name, or owner/name@tag"):
            push(classifier(), name, "")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ValueError, match=r"me/tiny could not be pushed: .*401"):
        push(classifier(), "me/tiny", "")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="nobody is logged in to the hub: run `hf auth login`"):
        push(classifier(), "me/tiny", "")
    assert hub.repositories == {}
