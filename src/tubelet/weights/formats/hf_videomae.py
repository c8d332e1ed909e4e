"""VideoMAE in Hugging Face's format, model_type `videomae`.

There the decoder always has the block settings of the encoder, and the eps of `decoder.norm` and `fc_norm` is always
1e-5.

The biases of queries and values have two names. Files of the hub, transformers 4 and most versions of transformers 5
have `q_bias` and `v_bias`. Some versions of transformers 5 (5.10.4 is one) look for `query.bias` and `value.bias`, find
nothing, and compute with zeros. So we write both, and every version finds its own. docs/models.md lists the versions.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tubelet.decoders.self_attention import SelfAttentionDecoder
from tubelet.encoders.vit import VideoViT
from tubelet.models.base import encoder_of
from tubelet.models.classifier import VideoClassifier
from tubelet.models.masked import MaskedModel
from tubelet.nodes import Node, path_of
from tubelet.targets.pixels import Pixels
from tubelet.weights.formats.hf_common import block_settings, describe_blocks, one_size, refuse, settings
from tubelet.weights.formats.hf_family import Family
from tubelet.weights.formats.keymap import Row
from tubelet.weights.source import State

_EPS = 1e-5


def _block_rows(ours: str, theirs: str) -> list[Row]:
    attention = f"{theirs}.attention.attention"
    rows: list[Row] = [
        (f"{ours}.attn.qkv.weight", tuple(f"{attention}.{part}.weight" for part in ("query", "key", "value"))),
        (f"{ours}.attn.q_bias", f"{attention}.q_bias"),
        (f"{ours}.attn.v_bias", f"{attention}.v_bias"),
    ]
    for a, b in (
        ("attn.proj", "attention.output.dense"),
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ):
        rows += [(f"{ours}.{a}.{kind}", f"{theirs}.{b}.{kind}") for kind in ("weight", "bias")]
    return rows


ROWS: list[Row] = [
    ("encoder.patch_embed.proj.weight", "videomae.embeddings.patch_embeddings.projection.weight"),
    ("encoder.patch_embed.proj.bias", "videomae.embeddings.patch_embeddings.projection.bias"),
    *_block_rows("encoder.blocks.{i}", "videomae.encoder.layer.{i}"),
    ("encoder.norm.weight", "videomae.layernorm.weight"),
    ("encoder.norm.bias", "videomae.layernorm.bias"),
    ("decoder.project.weight", "encoder_to_decoder.weight"),
    ("decoder.mask_token", "mask_token"),
    *_block_rows("decoder.blocks.{i}", "decoder.decoder_layers.{i}"),
    ("decoder.norm.weight", "decoder.norm.weight"),
    ("decoder.norm.bias", "decoder.norm.bias"),
    ("decoder.head.weight", "decoder.head.weight"),
    ("decoder.head.bias", "decoder.head.bias"),
    ("fc_norm.weight", "fc_norm.weight"),
    ("fc_norm.bias", "fc_norm.bias"),
    ("head.weight", "classifier.weight"),
    ("head.bias", "classifier.bias"),
]


class HFVideoMAE(Family):
    model_type = "videomae"
    encoder = VideoViT
    classes = {
        MaskedModel: "VideoMAEForPreTraining",
        VideoClassifier: "VideoMAEForVideoClassification",
    }
    bare = "VideoMAEModel"
    prefix = "videomae."
    rows = ROWS
    spellings = [
        (r"attention\.query\.bias$", "attention.q_bias"),
        (r"attention\.value\.bias$", "attention.v_bias"),
    ]
    preprocess = {
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "frame_stride": 4,
    }

    def encoder_node(self, config: Node) -> Node:
        bias = config.get("qv_bias", config.get("qkv_bias", True))
        return {
            "_target_": path_of(VideoViT),
            **settings(config, num_frames=16, layer_norm_eps=1e-12, hidden_act="gelu"),
            "patch_size": one_size(config.get("patch_size", 16), "patch_size"),
            "tubelet_size": config.get("tubelet_size", 2),
            "bias": "qv" if bias else "none",
            "final_norm": not config.get("use_mean_pooling", True),
        }

    def pretraining_node(self, config: Node, encoder: Node) -> Node:
        dim = config.get("decoder_hidden_size", 384)
        return {
            "_target_": path_of(MaskedModel),
            "encoder": encoder,
            "decoder": {
                "_target_": path_of(SelfAttentionDecoder),
                "_partial_": True,
                "dim": dim,
                "depth": config.get("decoder_num_hidden_layers", 4),
                "num_heads": config.get("decoder_num_attention_heads", 6),
                "mlp_ratio": config.get("decoder_intermediate_size", 1536) / dim,
                "norm_eps": _EPS,
                **{name: encoder[name] for name in ("bias", "act", "eps", "dropout", "attention_dropout")},
            },
            "target": {
                "_target_": path_of(Pixels),
                "_partial_": True,
                "normalise": config.get("norm_pix_loss", True),
            },
        }

    def head_node(self, config: Node) -> Node:
        mean = config.get("use_mean_pooling", True)
        return {"pool": "mean" if mean else "cls", "fc_norm": mean, "fc_norm_eps": _EPS}

    def weights_in(self, state: State) -> State:
        """Without a bias on the keys, which some versions of transformers 5 write: it adds the same to all scores of a
        query, so the softmax does not change.
        """
        return {key: value for key, value in state.items() if not key.endswith("attention.attention.key.bias")}

    def weights_out(self, state: State) -> State:
        """The biases of queries and values under both of their names. The second is a copy: safetensors refuses two
        names for the same memory.
        """
        both = dict(state)
        for key, value in state.items():
            for short, long in (("q_bias", "query.bias"), ("v_bias", "value.bias")):
                if key.endswith(f".{short}"):
                    both[key.removesuffix(short) + long] = value.clone()
        return both

    def describe(self, model: nn.Module) -> Node:
        encoder: Any = encoder_of(model)
        block = encoder.blocks[0]
        has_bias = block.attn.q_bias is not None
        has_norm = not isinstance(encoder.norm, nn.Identity)
        refuse(block.attn.scale is not None, "cosine attention")
        refuse(block.gamma_1 is not None, "layer scale")
        refuse(isinstance(encoder.positions, nn.Parameter), "learned positions in VideoMAE")
        refuse(block.attn.qkv.bias is not None, "a bias on the keys of VideoMAE's attention")
        config = {
            **describe_blocks(encoder),
            "tubelet_size": encoder.grid.tubelet,
            "patch_size": encoder.grid.patch,
            "qv_bias": has_bias,  # the name since transformers 5
            "qkv_bias": has_bias,  # the name before
            "use_mean_pooling": not has_norm,
        }
        if isinstance(model, VideoClassifier):
            refuse(model.pool != "cls" and has_norm, "mean pooling after a norm (norm_after_pool=True)")
            refuse(model.pool == "mean" and isinstance(model.fc_norm, nn.Identity), "mean pooling without fc_norm")
            refuse(
                model.pool == "cls" and not has_norm, "pooling by the first token of an encoder without a final norm"
            )
        if isinstance(model, MaskedModel):
            config |= _describe_decoder(model)
        return config


def _describe_decoder(model: MaskedModel) -> Node:
    refuse(type(model.decoder) is not SelfAttentionDecoder, f"a {type(model.decoder).__name__}")
    refuse(type(model.target) is not Pixels, f"a model that predicts {type(model.target).__name__}")
    assert isinstance(model.target, Pixels)
    encoder: Any = model.encoder
    decoder: Any = model.decoder
    ours, block = decoder.blocks[0], encoder.blocks[0]
    refuse(ours.attn.scale is not None or ours.gamma_1 is not None, "cosine attention or layer scale in the decoder")
    for name, (a, b) in block_settings(block, ours).items():
        refuse(a != b, f"a decoder whose {name} {b} is not the encoder's {a}")
    return {
        "decoder_hidden_size": decoder.mask_token.shape[-1],
        "decoder_num_hidden_layers": len(decoder.blocks),
        "decoder_num_attention_heads": ours.attn.num_heads,
        "decoder_intermediate_size": ours.mlp.fc1.out_features,
        "norm_pix_loss": model.target.normalise,
    }
