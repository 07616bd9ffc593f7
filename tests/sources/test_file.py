"""One recording as input."""


def test_a_single_recording(folder, listed):
    assert list(listed(folder / "a.wav")["path"]) == [str(folder / "a.wav")]
