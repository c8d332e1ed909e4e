"""Foreign models with random weights, and how far apart two of them are."""

from pathlib import Path

import pytest
import torch
import transformers

from tubelet.weights.formats.keymap import respell, to_theirs

# its documentation lists "selu" but its table of activations has lost it
transformers.activations.ACT2FN.setdefault("selu", torch.nn.SELU)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def foreign(tmp_path: Path):
    """(class, config) -> the transformers model in eval mode with every weight random, saved in `.directory`."""

    def make(cls, config):
        config._attn_implementation = "eager"
        model = cls(config).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                # convolutions stay as they are: their float32 kernel strays from the exact sum by more than we may
                deviation = {1: 0.1, 2: 0.1, 3: 0.02}.get(parameter.ndim, 0.0)
                parameter += deviation * torch.randn(parameter.shape, generator=generator)
        model.directory = tmp_path / f"foreign_{cls.__name__}"
        model.save_pretrained(model.directory)
        return model

    return make


@pytest.fixture
def clip():
    """(B, C, T, H, W) -> a random clip."""
    return lambda *shape: torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def difference():
    """The largest absolute difference of two tensors, or sequences of tensors, of equal shape."""

    def measure(ours, theirs):
        if not isinstance(ours, torch.Tensor):
            return max(measure(a, b) for a, b in zip(ours, theirs, strict=True))
        assert ours.shape == theirs.shape
        return (ours - theirs).abs().max().item()

    return measure


@pytest.fixture
def gradient_difference():
    """The largest difference of any gradient, relative to the largest number of that gradient there.

    Where a gradient is zero but for rounding (a bias on keys), relative to the smallest number that means something.
    """

    def measure(ours, theirs, family):
        mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
        mine = to_theirs(mine, family.rows)
        other = respell({name: parameter.grad for name, parameter in theirs.named_parameters()}, family.spellings)
        assert mine.keys() == other.keys()
        floor = 1e-3 * max(gradient.abs().max() for gradient in other.values())
        return max(
            ((mine[key].reshape_as(gradient) - gradient).abs().max() / gradient.abs().max().clamp(min=floor)).item()
            for key, gradient in other.items()
        )

    return measure
