"""Decoding a file reads no other file, whatever it refers to."""

import contextlib
import io
import os
import struct

import av
import pytest
from recordings import speech_like, write_audio

from ser_core.audio.decode import decode
from ser_core.errors import RecordingError, Status
from tests.audio.encoding import decode_file, encoded, refused

MPD = """<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT2S"><Period>
<AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">
<BaseURL>file://{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>"""
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile secret.wav\n",
    "ffconcat, absolute": "ffconcat version 1.0\nfile '{secret}'\n",
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n{secret}\n#EXT-X-ENDLIST\n",
    "DASH": MPD,
    "SDP": SDP,
    "M3U": "#EXTM3U\n{secret}\n",
    "PLS": "[playlist]\nFile1={secret}\nNumberOfEntries=1\n",
    "XSPF": "<playlist><trackList><track><location>{secret}</location></track></trackList>"
    "</playlist>",
    "a path": "{secret}\n",
}


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The URLs that FFmpeg asks to open while a recording is decoded."""
    asked: list[str] = []
    open_container = av.open

    def watched(*args, io_open, **kwargs):
        def asking(url, *rest):
            asked.append(url)
            return io_open(url, *rest)

        return open_container(*args, io_open=asking, **kwargs)

    monkeypatch.setattr(av, "open", watched)
    return asked


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_reads_no_other_file(tmp_path, monkeypatch, opened, kind):
    monkeypatch.chdir(tmp_path)
    secret = write_audio(tmp_path / "secret.wav", speech_like(2))
    (tmp_path / "x.wav").write_text(PLAYLISTS[kind].format(secret=secret))
    with pytest.raises(RecordingError) as caught:
        decode_file(tmp_path / "x.wav")
    assert caught.value.status is Status.DECODE_ERROR
    assert opened == []


# FFmpeg reads HLS, DASH and others by names and MIME types, too; these it knows by their content.
@pytest.mark.parametrize("kind", ["ffconcat", "ffconcat, absolute", "SDP", "PLS"])
def test_the_formats_of_playlists_are_not_allowed(kind):
    assert "not a format that is allowed" in str(refused(PLAYLISTS[kind].encode()))


def test_a_mov_refers_to_no_other_file(tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    secret = write_audio(tmp_path / "secret.raw", speech_like(2), format="RAW", subtype="PCM_16")
    mov = encoded(tmp_path, "x.mov", 2, 16000, 1, "-c:a", "pcm_s16le")
    inside = b"\0\0\0\x0curl \0\0\0\x01"
    target = os.fsencode(secret) + b"\0"
    outside = struct.pack(">I", 12 + len(target)) + b"url \0\0\0\0" + target
    assert mov.count(inside) == 1
    for data in (mov.replace(inside, outside), mov.replace(inside, inside[:-1] + b"\0")):
        with contextlib.suppress(RecordingError):
            decode(io.BytesIO(data))
        assert opened == []
