"""HuBERT or wav2vec 2.0 with its classifier, for inference: each distinct frame is computed once.

The networks of transformers train (`hubert.py`), and tests compare this one with them. Importing
those takes seconds, and their operations are not those of `kernels.py`.
"""

import torch
from torch import nn

from ser_core.models.architecture import Architecture
from ser_core.models.kernels import Forms
from ser_core.models.layers import (
    FeatureEncoder,
    LayerNorm,
    PositionalEmbedding,
    TransformerLayer,
    Weights,
    linear,
)
from ser_core.models.padding import (
    required_samples,
    with_distinct_frames,
    without_masked_frames,
)


class Network(nn.Module):
    """A network that computes each distinct frame of its padded input only once (`padding.py`).

    Attributes:
        architecture: its sizes.
        masked: whether padding is excluded by an attention mask.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Weights,
        forms: Forms = Forms(),  # noqa: B008 (immutable)
        masked: bool = False,
    ) -> None:
        """Builds a network.

        Args:
            architecture: its sizes.
            weights: exactly those of `Architecture.weight_shapes`; shared where neither type nor
                form changes.
            forms: in which its operations are fastest on its device.
            masked: exclude padding by an attention mask.
        """
        super().__init__()
        self.architecture = architecture
        self.masked = masked
        self._layer_weights = weights.get("layer_weights")
        self._head = _head(weights, architecture)
        body = weights.at(architecture.model_type)
        self._encoder = FeatureEncoder(body.at("feature_extractor"), architecture, forms)
        at = body.at("feature_projection")
        self._projection = nn.Sequential(linear(at.at("projection"), forms))
        if architecture.feat_proj_layer_norm:
            norm = LayerNorm(at.at("layer_norm"), architecture.layer_norm_eps)
            self._projection.insert(0, norm)
        at = body.at("encoder")
        self._positions = PositionalEmbedding(at.at("pos_conv_embed"), architecture)
        self._norm = LayerNorm(at.at("layer_norm"), architecture.layer_norm_eps)
        self.layers = nn.ModuleList(
            TransformerLayer(at.at(f"layers.{number}"), architecture, forms)
            for number in range(architecture.num_hidden_layers)
        )

    @property
    def embedding_size(self) -> int:
        """The size of what `pooled` returns."""
        return self.architecture.hidden_size

    def required_samples(self, lengths: list[int], frames_per_step: int = 1) -> int:
        """How many samples of its padded input it needs for a batch of recordings."""
        args = frames_per_step, self.masked
        ends = (min(lengths), max(lengths))  # shorter ones may need more if there is a mask
        return max(required_samples(self.architecture, length, *args) for length in ends)

    def forward(self, input_values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Maps inputs, as `pooled` takes them, to logits ``(batch, num_classes)``."""
        return self.head(self.pooled(input_values, lengths))

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Maps the mean over the frames to logits."""
        logits: torch.Tensor = self._head(pooled)
        return logits

    def pooled(self, input_values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The mean over the frames of the padded input.

        Args:
            input_values: shape ``(batch, num_samples)`` with the `required_samples` of the batch;
                the rest of the 6 s would repeat each row's last value.
            lengths: the samples of each recording, shape ``(batch,)``.

        Returns:
            Shape ``(batch, hidden_size)``; float32 also if the network is in bf16.
        """
        hidden_states = self._projection(self._encoder(input_values))
        if self.masked:
            hidden_states, weights = without_masked_frames(
                hidden_states, lengths, self.architecture
            )
        else:
            hidden_states, weights = with_distinct_frames(hidden_states, self.architecture)
        bias = None
        if self.masked or weights.shape[1] < self.architecture.max_frames:
            bias = weights.log().to(hidden_states.dtype)[:, None, None]
        hidden_states = self._transform(hidden_states, bias).to(weights.dtype)
        return (weights[:, None] @ hidden_states)[:, 0] / weights.sum(dim=1, keepdim=True)

    def _transform(self, hidden_states: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Runs the transformer; returns the last layer, or the weighted sum of all.

        As transformers does, that sum takes the last layer before a norm that follows all layers.
        """
        norm_first = self.architecture.do_stable_layer_norm
        hidden_states = hidden_states + self._positions(hidden_states)
        if not norm_first:
            hidden_states = self._norm(hidden_states)
        states = [hidden_states]
        for layer in self.layers:
            states.append(layer(states[-1], bias))
            if self._layer_weights is None:
                del states[0]
        if self._layer_weights is None:
            return self._norm(states[-1]) if norm_first else states[-1]
        shares = torch.softmax(self._layer_weights, dim=0)
        return torch.stack(states, dim=-1) @ shares


def _head(weights: Weights, architecture: Architecture) -> nn.Module:
    """The card's classifier or that of transformers; two rows of numbers need no fast form."""
    weights, plain = weights.exact, Forms()
    if architecture.card_head:
        dense = linear(weights.at("classifier.dense"), plain, "tanh")
        return nn.Sequential(dense, linear(weights.at("classifier.out_proj"), plain))
    projector = linear(weights.at("projector"), plain)
    return nn.Sequential(projector, linear(weights.at("classifier"), plain))
