"""An hour of silence in a small file costs no more than its limits, also in the parent process."""

import resource
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from ser_core.audio.decode import AudioInfo
from ser_core.audio.segments import Segmentation
from ser_core.sources.decoder import Decoder, DecoderSettings
from ser_core.sources.recording import Recording

RATE, SECONDS = 8_000, 3_600
BOMBS = {  # options of FFmpeg
    "x.flac": ["-ac", "8", "-frame_size", "65535"],
    "x.opus": ["-c:a", "libopus", "-b:a", "500", "-frame_duration", "60"],
    "x.m4a": ["-c:a", "alac"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=BOMBS)
def bomb(request, tmp_path_factory) -> Recording:
    path = tmp_path_factory.mktemp("bombs") / request.param
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi"]
    command += ["-i", f"anullsrc=r={RATE}:cl=mono:d={SECONDS}", *BOMBS[request.param], path]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert path.stat().st_size < 300_000
    return Recording(str(path), path.stat().st_size)


def decoded(bomb: Recording, how: Segmentation, memory: float) -> tuple[AudioInfo, int, int]:
    """The result, the number of samples, and by how many bytes the memory of this process grew."""
    before, num_samples = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    with Decoder(DecoderSettings(how, memory=memory)) as decoder:
        for part in decoder.decode([bomb]):
            assert not any(np.any(segment.waveform) for segment in part.segments)
            num_samples += sum(len(segment.waveform) for segment in part.segments)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    return part.result, num_samples, growth


@pytest.mark.parametrize(
    ("segments", "num_samples"), [("first", 96_000), ("all", SECONDS * 16_000)]
)
def test_it_is_decoded_in_little_memory(bomb, segments, num_samples):
    result, decoded_samples, growth = decoded(bomb, Segmentation(segments), memory=0.25)
    assert isinstance(result, AudioInfo)
    assert result.duration == pytest.approx(SECONDS, abs=0.1)
    assert decoded_samples == pytest.approx(num_samples, abs=1_600)
    assert growth < 48 << 20
