"""The audio classifiers of transformers, with the interface of the card's network."""

from typing import Any, cast

import torch
from torch import nn


class StandardClassifier(nn.Module):
    """Wraps ``HubertForSequenceClassification`` or its like, and takes its head apart."""

    model: Any
    projector: Any
    classifier: Any

    def __init__(self, model: nn.Module) -> None:
        """Wraps a network and takes its head from it, so that its outputs are the pooled frames.

        transformers takes the mean of the projected frames instead, which is equal: the projection
        is linear. But the mean of the frames is not among its outputs.
        """
        super().__init__()
        self.model = model
        self.projector, self.classifier = self.model.projector, self.model.classifier
        self.model.projector, self.model.classifier = nn.Identity(), nn.Identity()

    @property
    def backbone(self) -> Any:
        """The network without its head."""
        return self.model.base_model

    @property
    def embedding_size(self) -> int:
        """The size of what `pooled` returns."""
        return int(self.projector.in_features)

    def pooled(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The mean over the frames, shape ``(batch, hidden_size)``.

        Frames outside ``attention_mask`` are not pooled.
        """
        return cast(torch.Tensor, self.model(input_values, attention_mask=attention_mask).logits)

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Maps the mean over the frames, shape ``(batch, hidden_size)``, to logits."""
        projected = self.projector(pooled.to(self.projector.weight.dtype))
        return cast(torch.Tensor, self.classifier(projected))

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Maps ``input_values`` ``(batch, num_samples)`` to logits ``(batch, num_labels)``."""
        return self.head(self.pooled(input_values, attention_mask))
