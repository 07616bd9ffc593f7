"""An hour of silence in a small file costs no more than its limits, also in the parent process."""

import resource
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from ser_core.audio.decode import DecodedAudio
from ser_core.errors import RecordingError, Status
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


def decoded(bomb: Recording, whole: bool, memory: float) -> tuple[DecodedAudio | Exception, int]:
    """The result, and by how many bytes the memory of this process grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Decoder(DecoderSettings(whole=whole, memory=memory)) as decoder:
        (one,) = decoder.decode([bomb])
    return one.result, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10


def test_its_beginning_is_decoded_in_little_memory(bomb):
    result, growth = decoded(bomb, whole=False, memory=0.25)
    assert isinstance(result, DecodedAudio)
    assert result.duration == pytest.approx(SECONDS, abs=0.1)
    assert growth < 32 << 20


def test_all_of_it_is_too_large_for_little_memory(bomb):
    result, growth = decoded(bomb, whole=True, memory=0.25)
    assert isinstance(result, RecordingError)
    assert result.status is Status.TOO_LARGE
    assert growth < 32 << 20


def test_all_of_it_is_decoded_in_enough_memory(bomb):
    result, growth = decoded(bomb, whole=True, memory=2.0)
    assert isinstance(result, DecodedAudio)
    assert len(result.waveform) == pytest.approx(SECONDS * 16_000, abs=1_600)
    assert not np.any(result.waveform)
    assert growth < 3 * result.waveform.nbytes  # as received and as an array
