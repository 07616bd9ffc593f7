"""The sizes of a network, and the weights that it must have; without torch."""

from dataclasses import dataclass
from math import prod
from typing import Any

from ser_core.audio.constants import SEGMENT_SAMPLES

_COUNTER = "num_batches_tracked"  # of batch norms, which are the only integers


@dataclass(frozen=True)
class Architecture:
    """The sizes of a HuBERT or wav2vec 2.0 with a classifier.

    The names are those of transformers' configs where they have the same meaning.

    Attributes:
        model_type: ``hubert`` or ``wav2vec2``.
        card_head: whether the classifier is the card's, rather than that of transformers.
        num_classes: of the classifier.
        adapter_size: of the adapter of each layer's output; None if there are none.
        has_mask_embedding: whether there is a vector for masked frames, which only training uses.
    """

    model_type: str
    card_head: bool
    num_classes: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    conv_dim: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_bias: bool
    feat_extract_norm: str
    feat_extract_activation: str
    feat_proj_layer_norm: bool
    num_conv_pos_embeddings: int
    num_conv_pos_embedding_groups: int
    conv_pos_batch_norm: bool
    do_stable_layer_norm: bool
    adapter_size: int | None
    use_weighted_layer_sum: bool
    classifier_proj_size: int
    has_mask_embedding: bool

    @property
    def stride(self) -> int:
        """The samples from one frame to the next."""
        return prod(self.conv_stride)

    @property
    def receptive_field(self) -> int:
        """The samples that a frame sees."""
        return 1 + sum(
            (kernel - 1) * prod(self.conv_stride[:layer])
            for layer, kernel in enumerate(self.conv_kernel)
        )

    @property
    def max_frames(self) -> int:
        """The frames of 6 s."""
        return int(self.num_frames(SEGMENT_SAMPLES))

    def num_frames(self, num_samples: Any) -> Any:
        """How many frames the feature encoder makes of so many samples: an int, or a tensor."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            num_samples = (num_samples - kernel) // stride + 1
        return num_samples

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight, by the name that transformers gives it."""
        shapes = self._feature_encoder() | self._positions()
        hidden = self.hidden_size
        shapes |= _norm("encoder.layer_norm", hidden)
        for number in range(self.num_hidden_layers):
            shapes |= self._layer(f"encoder.layers.{number}.")
        if self.has_mask_embedding:
            shapes["masked_spec_embed"] = (hidden,)
        return {f"{self.model_type}.{name}": shape for name, shape in shapes.items()} | self._head()

    def _feature_encoder(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        channels = (1, *self.conv_dim)
        for layer, kernel in enumerate(self.conv_kernel):
            name, size = f"feature_extractor.conv_layers.{layer}", channels[layer + 1]
            shapes[f"{name}.conv.weight"] = (size, channels[layer], kernel)
            if self.conv_bias:
                shapes[f"{name}.conv.bias"] = (size,)
            if self.feat_extract_norm == "layer" or layer == 0:
                shapes |= _norm(f"{name}.layer_norm", size)
        if self.feat_proj_layer_norm:
            shapes |= _norm("feature_projection.layer_norm", channels[-1])
        return shapes | _linear("feature_projection.projection", channels[-1], self.hidden_size)

    def _positions(self) -> dict[str, tuple[int, ...]]:
        name, hidden = "encoder.pos_conv_embed", self.hidden_size
        taps = self.num_conv_pos_embeddings
        weight = (hidden, hidden // self.num_conv_pos_embedding_groups, taps)
        shapes: dict[str, tuple[int, ...]] = {f"{name}.conv.bias": (hidden,)}
        if not self.conv_pos_batch_norm:
            normed = f"{name}.conv.parametrizations.weight.original"
            return shapes | {f"{normed}0": (1, 1, taps), f"{normed}1": weight}
        running = {f"{name}.batch_norm.running_{kind}": (hidden,) for kind in ("mean", "var")}
        shapes |= _norm(f"{name}.batch_norm", hidden) | running
        return shapes | {f"{name}.conv.weight": weight, f"{name}.batch_norm.{_COUNTER}": ()}

    def _layer(self, name: str) -> dict[str, tuple[int, ...]]:
        hidden, wide = self.hidden_size, self.intermediate_size
        shapes = _norm(f"{name}layer_norm", hidden) | _norm(f"{name}final_layer_norm", hidden)
        for kind in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= _linear(f"{name}attention.{kind}", hidden, hidden)
        shapes |= _linear(f"{name}feed_forward.intermediate_dense", hidden, wide)
        shapes |= _linear(f"{name}feed_forward.output_dense", wide, hidden)
        if self.adapter_size:
            shapes |= _norm(f"{name}adapter_layer.norm", hidden)
            shapes |= _linear(f"{name}adapter_layer.linear_1", hidden, self.adapter_size)
            shapes |= _linear(f"{name}adapter_layer.linear_2", self.adapter_size, hidden)
        return shapes

    def _head(self) -> dict[str, tuple[int, ...]]:
        hidden, projected = self.hidden_size, self.classifier_proj_size
        if self.card_head:
            dense = _linear("classifier.dense", hidden, hidden)
            return dense | _linear("classifier.out_proj", hidden, self.num_classes)
        shapes = _linear("projector", hidden, projected)
        if self.use_weighted_layer_sum:
            shapes["layer_weights"] = (self.num_hidden_layers + 1,)
        return shapes | _linear("classifier", projected, self.num_classes)


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def weight_type(name: str) -> str:
    """The type of a weight, by its name."""
    return "int64" if name.endswith(_COUNTER) else "float32"
