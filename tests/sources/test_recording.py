"""The identity of a recording, and its file_id, which changes with the content."""

import dataclasses

from ser_core.sources.recording import Recording

ONE = Recording("/a/1.wav", 10, "v1", name="1.wav")


def test_identity_is_the_uri_and_the_member_but_not_the_name():
    assert ONE.identity == dataclasses.replace(ONE, name="other").identity == "/a/1.wav"
    member = dataclasses.replace(ONE, member="x.wav")
    assert member.identity not in (ONE.identity, dataclasses.replace(ONE, member="y.wav").identity)


def test_file_id_changes_with_identity_size_and_version_only():
    assert ONE.file_id == dataclasses.replace(ONE, name=None).file_id
    for change in ({"uri": "/b/1.wav"}, {"size": 11}, {"version": "v2"}, {"member": "x"}):
        assert dataclasses.replace(ONE, **change).file_id != ONE.file_id


def test_file_ids_separate_their_fields():
    assert Recording("/a1", 2, "3").file_id != Recording("/a", 12, "3").file_id


def test_file_ids_have_not_changed_since_release_0_1():
    """Copied from its outputs; if they changed, every corpus would be labelled again."""
    assert Recording("/a.wav", 10, "1").file_id == "0cb7702a21b808c2985b5345e2589375"
    assert (
        Recording("/data/a.wav", 10, "1", name="a.wav").file_id_of_0_1
        == "ed8b41cbdfc530d2f2aa08f5bd757d12"
    )
