"""A folder of files, and helpers that list an input or expect its refusal."""

import pandas as pd
import pytest

from ser_core.errors import CorpusError
from ser_core.sources.forms import open_source
from ser_core.sources.interface import InputOptions


@pytest.fixture
def folder(tmp_path):
    """Three recordings, and files that are none."""
    names = [
        "a.wav",
        "deep/er/b.FLAC",
        "名 字+#%.mp3",
        "notes.unknown",
        ".hidden.wav",
        "_spark/c.wav",
    ]
    names += [".git/d.wav", "deep/_e.wav", "wav"]
    for name in names:
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path / "corpus"


@pytest.fixture
def listed():
    """Lists the recordings of inputs, as a table with the columns of their manifests."""

    def list_inputs(*uris, **options):
        rows = []
        for page in open_source([*map(str, uris)], InputOptions(**options)).pages():
            columns = page.columns.to_pylist() if page.columns else [{}] * len(page.recordings)
            for recording, extra in zip(page.recordings, columns, strict=True):
                reference = {name: getattr(recording, name) for name in ("uri", "size", "file_id")}
                rows.append({"path": recording.path, **reference, **extra})
        return pd.DataFrame(rows, columns=None if rows else ["path"])

    return list_inputs


@pytest.fixture
def refusal():
    """Expects that an input is refused in one line that names it, and returns that line."""

    def refuse(uri, error=CorpusError):
        with pytest.raises(error) as caught:
            list(open_source([str(uri)]).pages())
        message = str(caught.value)
        assert message.startswith(f"--input {uri}: ")
        assert "\n" not in message
        return message

    return refuse
