"""Label sets, their order, and the names of emotions; it knows nothing of models or files."""

import re
from collections.abc import Mapping

# The order of the model card's `id2class`, which its config.json does not carry.
CASIA_LABELS = ("angry", "fear", "happy", "neutral", "sad", "surprise")

# Canonical name → what corpora and people write for it. 平静 is missing: some mean calm by it, some
# neutral.
_ALIASES = {
    "angry": "anger ang 生气 愤怒",
    "boredom": "bored 无聊",
    "calm": "calmness",
    "disgust": "disgusted dis 厌恶",
    "fear": "fearful afraid fea 恐惧 害怕",
    "happy": "happiness hap joy 高兴 快乐 开心",
    "neutral": "neu 中性 中立",
    "sad": "sadness 悲伤 伤心 难过",
    "surprise": "surprised sur ps pleasant_surprise pleasant_surprised 惊讶 惊喜 吃惊",
}
EMOTIONS = tuple(_ALIASES)
_CANONICAL = {
    alias: name for name, aliases in _ALIASES.items() for alias in [name, *aliases.split()]
}

_PLACEHOLDER = re.compile(r"LABEL_\d+")  # what transformers writes where nobody named the classes


def canonical(name: str) -> str:
    """The canonical name of an emotion; a name that nobody listed is its own.

    >>> canonical("Anger"), canonical("Pleasant surprise"), canonical("高兴"), canonical("Awe")
    ('angry', 'surprise', 'happy', 'Awe')
    """
    name = name.strip()
    return _CANONICAL.get(re.sub(r"[\s-]+", "_", name).casefold(), name)


def labels_of(id2label: Mapping[str, str] | None, num_classes: int) -> tuple[str, ...]:
    """The classes of a checkpoint in the order of its logits.

    Args:
        id2label: ``config.json``'s mapping from class index (as a string) to name, if any.
        num_classes: how many logits the checkpoint has.

    Raises:
        ValueError: the names do not cover the classes, one each.

    >>> labels_of({"0": "LABEL_0", "1": "LABEL_1"}, 6)[0]
    'angry'
    >>> labels_of({"0": "neu", "1": "hap"}, 2)
    ('neu', 'hap')
    """
    named = id2label and not all(_PLACEHOLDER.fullmatch(name) for name in id2label.values())
    if not named:
        if num_classes != len(CASIA_LABELS):
            raise ValueError(f"id2label names none of its {num_classes} classes")
        return CASIA_LABELS
    assert id2label is not None
    try:
        labels = tuple(id2label[str(index)] for index in range(num_classes))
    except KeyError as missing:
        raise ValueError(f"id2label has no name for class {missing}") from None
    if len(set(labels)) != len(id2label):
        raise ValueError(f"id2label does not name {num_classes} distinct classes")
    return labels
