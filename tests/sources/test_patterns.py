"""Braces and globs: what they stand for and which paths they match."""

import fsspec
import pytest

from ser_core.errors import UsageError
from ser_core.sources.patterns import Glob, expand_braces, matches_name, parse_glob
from ser_core.storage.listing import list_files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.wav", ["a.wav"]),
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{008..11}", ["008", "009", "010", "011"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{0..10..5}", ["0", "5", "10"]),
        ("{a,b}/{1..2}", ["a/1", "a/2", "b/1", "b/2"]),
        ("x{,.bak}", ["x", "x.bak"]),
        ("{{a,b}1,c}", ["a1", "c", "b1", "c"]),
        ("{a}{}{1..}{a..c}", ["{a}{}{1..}{a..c}"]),  # no alternatives and no numbers
    ],
)
def test_braces(text, expected):
    assert list(expand_braces(text)) == expected


def test_braces_are_spelled_out_lazily():
    assert next(expand_braces("{0..99999999999999}")) == "0"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/2026-11-*/**/*.flac", Glob("s3://b", "2026-11-*/**/*.flac")),
        ("s3://b/calls/day/[0-9].flac", Glob("s3://b/calls/day", "[0-9].flac")),
        ("s3://b/calls/what?.wav", Glob("s3://b/calls", "what?.wav")),
        ("s3://b/calls", None),
        ("https://host/calls?day=1", None),
        ("https://host/calls/*.wav", Glob("https://host/calls", "*.wav")),
        ("http://[::1]:8000/calls", None),
        ("/*.wav", Glob("/", "*.wav")),
        ("/nowhere/at/all/*/1.wav", Glob("/nowhere/at/all", "*/1.wav")),
    ],
)
def test_a_pattern_begins_at_the_first_name_with_a_wildcard(uri, expected):
    assert parse_glob(uri) == expected


def test_local_names_that_exist_are_literal(tmp_path):
    folder = tmp_path / "[raw] calls*"
    folder.mkdir()
    (folder / "a[1].wav").write_bytes(b"x")
    assert parse_glob(str(folder)) is None
    assert parse_glob(str(folder / "a[1].wav")) is None
    assert parse_glob(str(folder / "b[1].wav")) == Glob(str(folder), "b[1].wav")
    assert parse_glob(str(folder / "day" / "*")) == Glob(str(folder / "day"), "*")


NAMES = ["1.flac", "a/1.flac", "a/b/1.flac", "a/b/2.wav", "ab/1.flac", "_c/1.flac", "a/.d/1.flac"]


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["1.flac"]),
        ("*.flac", ["1.flac"]),
        ("**/*.flac", ["1.flac", "a/1.flac", "a/b/1.flac", "ab/1.flac"]),
        ("a/**", ["a/1.flac", "a/b/1.flac", "a/b/2.wav"]),
        ("a*/1.flac", ["a/1.flac", "ab/1.flac"]),
        ("a/**/b/*", ["a/b/1.flac", "a/b/2.wav"]),
        ("?b/*", ["ab/1.flac"]),
        ("a/[!0-9]/?.*", ["a/b/1.flac", "a/b/2.wav"]),
        ("[_]c/*", []),  # names that are hidden have to be spelled out, as in a shell
        ("*/.d/*", ["a/.d/1.flac"]),
        ("1.fla", []),
        ("flac*", []),
    ],
)
def test_what_a_pattern_matches(pattern, expected, remote, tmp_path):
    """On a local disk and on a store whose listing spells the root in another way."""
    root = str(tmp_path)
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    if remote:
        root = f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").put(str(tmp_path), f"/{tmp_path.name}", recursive=True)
    glob = Glob(root, pattern)
    matches = glob.compiled("--input").match
    entries = list_files(root, lambda path: bool(matches(path)), hidden=glob.names_hidden)
    found = sorted(entry.path.partition(f"{tmp_path.name}/")[2] for entry in entries)
    assert found == expected


def test_a_pattern_matches_the_end_of_a_path():
    for pattern, expected in [("*.raw", 1), ("calls/*.raw", 1), ("**/1.*", 1), ("/calls/1.raw", 1)]:
        assert matches_name(pattern, "s3://b/calls/1.raw", "") is bool(expected), pattern
    for pattern in "*.RAW", "*.ra", "alls/*.raw", "b/*.raw", "raw":
        assert not matches_name(pattern, "s3://b/calls/1.raw", ""), pattern


def test_folders_within_a_name_are_refused():
    with pytest.raises(UsageError, match=r"^--include a\*\*\.wav: \*\* stands for folders"):
        matches_name("a**.wav", "a.wav", "--include")
    with pytest.raises(UsageError, match=r"^--input /data/\*\*\.wav: \*\* stands for folders"):
        Glob("/data", "**.wav").compiled("--input")
