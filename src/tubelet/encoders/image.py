"""An image transformer of timm (ImageNet, DINO, CLIP, ...) applied to every frame by itself.

It knows no motion, and cannot be pretrained with masks. It is a teacher (tubelet.targets.features), or a baseline whose
features are extracted and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tubelet.clip import ClipGrid
from tubelet.encoders.base import Encoder, EncoderOutput, sides
from tubelet.masking import Mask


def timm_vit(name: str, pretrained: bool) -> Any:
    """A vision transformer of timm without a head, for any image size. Raises ValueError if `name` is none."""
    import timm  # takes seconds, and other encoders do not need it

    # a name is all that a file may give: timm would fetch whatever `hf-hub:...` points to
    if not timm.is_model(name):
        raise ValueError(f"timm has no model '{name}'; `timm.list_models('vit*')` lists them")
    try:
        vit = timm.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True)
    except TypeError as error:
        raise ValueError(f"timm's '{name}' is no vision transformer of any image size: {error}") from error
    missing = [part for part in ("patch_embed", "blocks", "norm", "num_prefix_tokens") if not hasattr(vit, part)]
    if missing:
        raise ValueError(f"timm's '{name}' is no vision transformer: it has no {', '.join(missing)}")
    return vit


class ImageViT(Encoder):
    """[B,C,T,H,W] -> the patch tokens of every frame [B,T*h*w,D], without class tokens; a time step is one frame.

    Args:
        name: of a vision transformer of timm, "vit_base_patch16_224.dino" for example. Its weights are random;
            `load_encoder("timm:NAME")` fetches those of timm.
        image_size, num_frames: the clip. timm resizes the table of positions in every forward if its own size differs.
    """

    def __init__(self, name: str, image_size: int | Sequence[int] = 224, num_frames: int = 16) -> None:
        super().__init__()
        self.vit = timm_vit(name, pretrained=False)
        self.norm, self.vit.norm = self.vit.norm, nn.Identity()  # the last norm is where every encoder has it
        self.grid = ClipGrid(num_frames, *sides(image_size), 1, self.vit.patch_embed.patch_size[0])
        self.dim, self.in_channels = self.vit.embed_dim, self.vit.patch_embed.proj.in_channels

    def layers(self) -> Sequence[nn.Module]:
        return [self.vit.patch_embed, *self.vit.blocks, self.norm]

    def check_masking(self, masking: Any) -> None:
        raise ValueError("ImageViT reads whole frames and cannot be pretrained with masks: take a video encoder")

    def forward(
        self,
        clip: Tensor,
        mask: Mask | None = None,
        return_hidden_states: bool = False,
        return_attentions: bool = False,
    ) -> Tensor | EncoderOutput:
        """Raises ValueError if asked for a mask, hidden states or attentions: it has none."""
        if mask is not None or return_hidden_states or return_attentions:
            raise ValueError("ImageViT has no masks, no hidden states and no attentions: its blocks are timm's")
        weight = self.vit.patch_embed.proj.weight
        frames = clip.transpose(1, 2).flatten(0, 1).to(weight.dtype)  # [B*T,C,H,W]
        tokens = self.norm(self.vit.forward_features(frames))[:, self.vit.num_prefix_tokens :]  # [B*T,h*w,D]
        return tokens.unflatten(0, (-1, clip.shape[2])).flatten(1, 2)
