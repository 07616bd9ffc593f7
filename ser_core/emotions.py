"""The names of emotions, and the label order of a checkpoint; it knows neither models nor files."""

import re
from collections.abc import Mapping

# The order of the model card's `id2class`; the card's config.json does not contain it.
CASIA_LABELS = ("angry", "fear", "happy", "neutral", "sad", "surprise")

# Canonical name → the spellings found in corpora. 平静 is left out: some corpora use it for calm,
# others for neutral.
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

_PLACEHOLDER = re.compile(r"LABEL_\d+")  # the default of transformers for classes without a name


def canonical(name: str) -> str:
    """The canonical name of an emotion; an unknown name is returned stripped, otherwise unchanged.

    >>> canonical("Anger"), canonical("Pleasant surprise"), canonical("高兴"), canonical("Awe")
    ('angry', 'surprise', 'happy', 'Awe')
    """
    name = name.strip()
    return _CANONICAL.get(re.sub(r"[\s-]+", "_", name).casefold(), name)


def labels_of(id2label: Mapping[str, str] | None, num_classes: int) -> tuple[str, ...]:
    """The classes of a checkpoint in the order of its logits.

    A checkpoint with six unnamed classes has those of CASIA, as the model card's has.

    Args:
        id2label: ``config.json``'s mapping from class index (as a string) to name, if any.
        num_classes: the number of logits.

    Raises:
        ValueError: there are no names, or they are not one distinct name for each class.

    >>> labels_of({"0": "LABEL_0", "1": "LABEL_1"}, 6)[0]
    'angry'
    >>> labels_of({"0": "neu", "1": "hap"}, 2)
    ('neu', 'hap')
    """
    if not id2label or all(_PLACEHOLDER.fullmatch(name) for name in id2label.values()):
        if num_classes != len(CASIA_LABELS):
            raise ValueError(f"id2label names none of its {num_classes} classes")
        return CASIA_LABELS
    try:
        labels = tuple(id2label[str(index)] for index in range(num_classes))
    except KeyError as missing:
        raise ValueError(f"id2label has no name for class {missing}") from None
    if len(set(labels)) != len(id2label):
        raise ValueError(f"id2label does not name {num_classes} distinct classes")
    return labels
