"""What inputs list, as plain rows, for comparisons."""

from ser_core.sources.forms import open_source
from ser_core.sources.interface import InputOptions


def listed_rows(*uris, **options):
    """A dict for each recording: path, start, duration, and the manifest's own columns."""
    source = open_source([*map(str, uris)], InputOptions(**options))
    rows = []
    for page in source.pages():
        columns = page.columns.to_pylist() if page.columns else [{}] * len(page.recordings)
        if page.columns is not None:
            assert page.columns.schema.equals(source.columns)
        for recording, own in zip(page.recordings, columns, strict=True):
            stretch = {"start": recording.start, "duration": recording.duration}
            rows.append({"path": recording.path, **stretch, **own})
    return rows
