"""What the model takes: its sampling rate, the length of a segment, the scale of 16-bit samples."""

SAMPLING_RATE = 16_000  # Hz
SEGMENT_SECONDS = 6.0  # the card's `duration`: it pads or cuts every recording to this
SEGMENT_SAMPLES = 96_000
FULL_SCALE = 32_768  # 16-bit sample → float
