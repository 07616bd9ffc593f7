"""Listing a folder: links, and how early the first entry is returned."""

import pytest

from ser_core.storage.listing import list_files


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "deep/er/b.flac", "名 字+#%.mp3"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return tmp_path


def test_links_are_followed_once_and_dangling_links_are_listed(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    entries = list(list_files(str(folder), lambda _: True))
    sizes = {entry.path: entry.size for entry in entries}
    assert len(entries) == len(sizes) == 3 + 1
    assert sizes[str(folder / "gone.wav")] is None


def test_a_listing_returns_its_first_entry(folder):
    entries = list_files(str(folder), lambda _: True)
    assert next(entries)
