"""The model card's network: HuBERT with the card's classification head."""

from typing import Any

import torch
from torch import nn
from transformers import HubertConfig, HubertModel
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel


class HubertClassificationHead(nn.Module):
    """The card's head on the mean of all frames: dense, tanh, dropout, out_proj."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.num_class)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Maps ``pooled`` of shape ``(batch, hidden_size)`` to logits ``(batch, num_class)``."""
        logits: torch.Tensor = self.out_proj(self.dropout(torch.tanh(self.dense(pooled))))
        return logits


class HubertForSpeechClassification(HubertPreTrainedModel):
    """HuBERT, the mean over its frames, and the card's head."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(config)
        self.hubert = HubertModel(config)
        self.classifier = HubertClassificationHead(config)
        self.post_init()

    @property
    def backbone(self) -> Any:
        """The network without its head."""
        return self.hubert

    @property
    def embedding_size(self) -> int:
        """The size of what `pooled` returns."""
        return self.classifier.dense.in_features

    def pooled(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,  # noqa: ARG002 (StandardClassifier uses it)
    ) -> torch.Tensor:
        """The mean over all frames, shape ``(batch, hidden_size)``.

        ``attention_mask`` is ignored: the card passes no mask and pools over the padding.
        """
        pooled: torch.Tensor = self.hubert(input_values)[0].mean(dim=1)
        return pooled

    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Maps the mean over the frames, shape ``(batch, hidden_size)``, to logits."""
        logits: torch.Tensor = self.classifier(pooled.to(self.classifier.dense.weight.dtype))
        return logits

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Maps ``input_values`` ``(batch, num_samples)`` to logits ``(batch, num_class)``."""
        return self.head(self.pooled(input_values, attention_mask))
