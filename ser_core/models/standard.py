"""The audio classifiers of transformers, with the interface of the card's network."""

from typing import Any, cast

import torch
from torch import nn


class StandardClassifier(nn.Module):
    """Wraps ``HubertForSequenceClassification`` or its like, and returns only the logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def backbone(self) -> Any:
        """The network without its head."""
        return self.model.base_model

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Maps the mean over the frames, shape ``(batch, hidden_size)``, to logits.

        transformers takes the mean of the projected frames instead, which is equal: the
        projection is linear.
        """
        model: Any = self.model
        return cast(torch.Tensor, model.classifier(model.projector(pooled)))

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Maps ``input_values`` ``(batch, num_samples)`` to logits ``(batch, num_labels)``.

        Frames outside ``attention_mask`` are not pooled.
        """
        return cast(torch.Tensor, self.model(input_values, attention_mask=attention_mask).logits)
