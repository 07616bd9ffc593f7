"""A checkpoint's ``config.json`` → its `Architecture`, checked against its weights."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ser_core.errors import CheckpointError, first_few
from ser_core.models.architecture import Architecture, weight_type
from ser_core.models.checkpoint import Checkpoint

Value = TypeVar("Value")

# The families of networks, by ``model_type``; their weights' names begin with it. What `padding.py`
# derives holds for them alone: WavLM has relative positions in every layer, data2vec-audio several
# positional convolutions, SEW pools the frames before the transformer.
_WITH_THE_CARDS_HEAD = ("hubert",)
_WITH_A_STANDARD_HEAD = ("hubert", "wav2vec2")
# The classes of transformers with the head that it calls standard.
_STANDARD_NETWORKS = ("HubertForSequenceClassification", "Wav2Vec2ForSequenceClassification")
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish", "tanh")
MAX_LAYERS = 100  # the largest HuBERT has 48
MAX_SIZE = 1_000_000  # the largest in a HuBERT is 5,120, a layer's width


def is_card_style(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` describes the card's head rather than that of transformers.

    >>> is_card_style({"model_type": "hubert", "num_class": 6})
    True
    >>> is_card_style({"architectures": ["HubertForSequenceClassification"]})
    False
    """
    architectures = config.get("architectures")
    named = map(str, architectures) if isinstance(architectures, list) else ()
    return "num_class" in config and not set(_STANDARD_NETWORKS).intersection(named)


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    """Reads a checkpoint's config, and checks that it has exactly the weights of that network.

    Raises:
        CheckpointError: the architecture is not supported, or a weight is missing, unexpected, or
            has another shape or type.
    """
    config = checkpoint.config
    card_style = is_card_style(config)
    families = _WITH_THE_CARDS_HEAD if card_style else _WITH_A_STANDARD_HEAD
    model_type = config.get("model_type")
    if model_type not in families:
        head = " with the model card's head" if card_style else ""
        supported = ", ".join(families)
        problem = f"model_type {model_type!r}{head} is not supported (supported: {supported})"
        raise CheckpointError(f"{checkpoint.name}: {problem}")
    try:
        architecture = read_architecture(config, len(checkpoint.labels))
    except ValueError as error:
        raise no_network(checkpoint.name, str(error)) from None
    _check_weights(checkpoint, architecture.weight_shapes())
    return architecture


def _check_weights(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    actual = checkpoint.weights
    common = expected.keys() & actual.keys()
    shapes = {name for name in common if expected[name] != actual[name].shape}
    mismatches = {
        "missing": expected.keys() - actual.keys(),
        "unexpected": actual.keys() - expected.keys(),
        "wrong shape": shapes,
        "wrong type": {n for n in common - shapes if actual[n].dtype != weight_type(n)},
    }
    found = "; ".join(
        f"{kind}: {first_few(sorted(names))}" for kind, names in mismatches.items() if names
    )
    if found:
        problem = f"the weights do not match the network ({found}){_advice(checkpoint)}"
        raise CheckpointError(f"{checkpoint.name}: {problem}")


def _advice(checkpoint: Checkpoint) -> str:
    if is_card_style(checkpoint.config) and "projector.weight" in checkpoint.weights:
        return (
            ". The weights are those of HubertForSequenceClassification, but the config is the"
            ' card\'s: set "architectures": ["HubertForSequenceClassification"] in config.json and'
            " name the classes under id2label"
        )
    if not is_card_style(checkpoint.config) and "classifier.out_proj.weight" in checkpoint.weights:
        return (
            ". The weights have the model card's head: set"
            ' "architectures": ["HubertForSpeechClassification"] and "num_class" in config.json'
        )
    if "classifier.out_proj.weight" not in checkpoint.weights:
        return ". It has no emotion classifier yet: fine-tune it with jobs.train"
    return ""


def no_network(source: str, reason: str) -> CheckpointError:
    """The error of a network that cannot be built or run as ``config.json`` says."""
    return CheckpointError(f"{source}: config.json makes no working network ({reason})")


def read_architecture(config: Mapping[str, Any], num_labels: int) -> Architecture:
    """Reads the settings of a ``config.json`` that describe the network; the others are ignored.

    The defaults are those of transformers.

    Args:
        config: of one of the families.
        num_labels: the classes of a standard head; the card's head has ``num_class``.

    Raises:
        ValueError: a setting is out of range, or they do not go together.
    """
    settings, card_style = _Settings(config), is_card_style(config)
    masks = [settings.number("mask_time_prob", 0.05), settings.number("mask_feature_prob", 0.0)]
    architecture = Architecture(
        model_type=str(config.get("model_type")),
        card_head=card_style,
        num_classes=settings.size("num_class", None) if card_style else num_labels,
        use_weighted_layer_sum=not card_style and settings.flag("use_weighted_layer_sum", False),
        classifier_proj_size=settings.size("classifier_proj_size", 256),
        has_mask_embedding=max(masks) > 0,
        **_convolutions(settings),
        **_transformer(settings),
    )
    _check_sizes(architecture)
    return architecture


def _convolutions(settings: "_Settings") -> dict[str, Any]:
    hubert = settings.config.get("model_type") == "hubert"
    return {
        "conv_dim": settings.sizes("conv_dim", (512,) * 7),
        "conv_kernel": settings.sizes("conv_kernel", (10, 3, 3, 3, 3, 2, 2)),
        "conv_stride": settings.sizes("conv_stride", (5, 2, 2, 2, 2, 2, 2)),
        "conv_bias": settings.flag("conv_bias", False),
        "feat_extract_norm": settings.choice("feat_extract_norm", "group", "layer"),
        "feat_extract_activation": settings.choice("feat_extract_activation", *_ACTIVATIONS),
        "feat_proj_layer_norm": not hubert or settings.flag("feat_proj_layer_norm", True),
        "num_conv_pos_embeddings": settings.size("num_conv_pos_embeddings", 128),
        "num_conv_pos_embedding_groups": settings.size("num_conv_pos_embedding_groups", 16),
        "conv_pos_batch_norm": hubert and settings.flag("conv_pos_batch_norm", False),
    }


def _transformer(settings: "_Settings") -> dict[str, Any]:
    return {
        "hidden_size": settings.size("hidden_size", 768),
        "num_hidden_layers": settings.size("num_hidden_layers", 12, MAX_LAYERS),
        "num_attention_heads": settings.size("num_attention_heads", 12),
        "intermediate_size": settings.size("intermediate_size", 3072),
        "hidden_act": settings.choice("hidden_act", *_ACTIVATIONS),
        "layer_norm_eps": settings.number("layer_norm_eps", 1e-5),
        "do_stable_layer_norm": settings.flag("do_stable_layer_norm", False),
        "adapter_size": _adapter_size(settings),
    }


def _adapter_size(settings: "_Settings") -> int | None:
    """Adapters are in wav2vec 2.0 alone: those of each layer if the norms come first."""
    if settings.config.get("model_type") == "hubert":
        return None
    if settings.flag("add_adapter", False):
        raise ValueError("add_adapter is not supported")
    stable = settings.flag("do_stable_layer_norm", False)
    if settings.config.get("adapter_attn_dim") is None or not stable:
        return None
    return settings.size("adapter_attn_dim", None)


def _check_sizes(architecture: Architecture) -> None:
    kernels, strides = architecture.conv_kernel, architecture.conv_stride
    if not len(architecture.conv_dim) == len(kernels) == len(strides):
        raise ValueError("conv_dim, conv_kernel and conv_stride have different lengths")
    if any(kernel < stride for kernel, stride in zip(kernels, strides, strict=True)):
        raise ValueError("a conv_stride is longer than its conv_kernel")
    for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
        if architecture.hidden_size % getattr(architecture, name):
            raise ValueError(f"hidden_size is not divisible by {name}")
    if architecture.max_frames < 1:
        raise ValueError("6 s are less than a frame")


class _Settings:
    """The content of a ``config.json``, whose values may be anything."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def size(self, name: str, default: int | None, most: int = MAX_SIZE) -> int:
        return self._valid(name, default, lambda value: _is_size(value, most))

    def sizes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        def valid(value: Any) -> bool:
            is_list = isinstance(value, list | tuple) and 0 < len(value) <= MAX_LAYERS
            return is_list and all(_is_size(each, MAX_SIZE) for each in value)

        return tuple(self._valid(name, default, valid))

    def number(self, name: str, default: float) -> float:
        return self._valid(
            name, default, lambda value: type(value) in (int, float) and 0 <= value <= 1
        )

    def flag(self, name: str, default: bool) -> bool:
        return self._valid(name, default, lambda value: isinstance(value, bool))

    def choice(self, name: str, *choices: str) -> str:
        return self._valid(name, choices[0], lambda value: value in choices)

    def _valid(self, name: str, default: Value | None, valid: Callable[[Any], bool]) -> Value:
        value: Any = self.config.get(name, default)
        if not valid(value):
            raise ValueError(f"{name} {str(value)[:50]!r} is not supported")
        return value  # type: ignore[no-any-return]


def _is_size(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most
