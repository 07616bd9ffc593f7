"""File names of published corpora give truth, speaker and sentence; nothing is guessed."""

from itertools import product

import fsspec
import pandas as pd
import pytest
from misbehaving_store import BUCKET
from recordings import write_manifest

from ser_core.corpora.layouts import LAYOUTS, read_corpus
from ser_core.errors import CorpusError, RunError

CASIA_SPEAKERS = ("liuchanhg", "wangzhe", "zhaoquanyin", "ZhaoZuoxiang")
CASIA_EMOTIONS = ("angry", "fear", "happy", "neutral", "sad", "surprise")


def touch(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(folder)


def casia(emotions=CASIA_EMOTIONS):
    clips = product(CASIA_SPEAKERS, emotions, range(201, 251))
    return [f"{speaker}/{emotion}/{sentence}.wav" for speaker, emotion, sentence in clips]


def rows(recordings, data):
    below = recordings["path"].str.removeprefix(f"{data}/")
    columns = [below, *(recordings[name] for name in ("truth", "speaker", "sentence"))]
    return list(zip(*columns, strict=True))


def refusal(name, data):
    with pytest.raises(CorpusError) as caught:
        read_corpus(name, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_casia(tmp_path, caplog):
    recordings = read_corpus("casia", touch(tmp_path, casia()))
    assert list(recordings.columns) == ["path", "truth", "speaker", "sentence"]
    assert recordings.groupby(["speaker", "truth"])["sentence"].nunique().eq(50).all()
    assert set(recordings["speaker"]) == set(CASIA_SPEAKERS)
    assert set(recordings["truth"]) == set(CASIA_EMOTIONS)
    assert len(recordings) == 1_200
    assert recordings["path"].is_monotonic_increasing
    assert not caplog.records


@pytest.mark.parametrize(
    "emotions",
    [
        ("anger", "fearful", "happiness", "Neutral", "SAD", "surprised"),
        ("生气", "害怕", "高兴", "中性", "悲伤", "惊讶"),
    ],
)
def test_casia_under_other_names(tmp_path, caplog, emotions):
    names = [f"CASIA情感语料库/{name}" for name in casia(emotions)]
    names[0] = names[0].replace("liuchanhg", "LiuChanhg").replace(".wav", ".WAV")
    recordings = read_corpus("casia", touch(tmp_path, names))
    counts = recordings.groupby(["speaker", "truth"]).size()
    assert counts.index.levels[1].tolist() == list(CASIA_EMOTIONS)
    assert counts.eq(50).all()  # although the case of one folder differs
    assert not caplog.records


def test_unmatched_and_missing_files_are_listed(tmp_path, caplog):
    names = casia()
    names.remove("wangzhe/fear/217.wav")
    unmatched = ["201.wav", "_desktop.ini", "wangzhe/_desktop.ini", "wangzhe/fear/._201.wav"]
    unmatched += ["wangzhe/shouting/201.wav", "wangzhe/fear/201 (1).wav", "wangzhe/202.wav"]
    unmatched += [".Trash-0/wangzhe/fear/217.wav"]
    recordings = read_corpus("casia", touch(tmp_path, names + unmatched))
    assert len(recordings) == 1_199
    skipped, missing = (record.getMessage() for record in caplog.records)
    assert f": {len(unmatched)} (.Trash-0/wangzhe/fear/217.wav, 201.wav, " in skipped
    assert "and 3 more" in skipped
    assert "_desktop.ini" in skipped
    assert "1,199 of the 1,200" in missing
    assert missing.endswith("missing: wangzhe/fear/217")


def test_a_missing_speaker_is_reported(tmp_path, caplog):
    read_corpus("casia", touch(tmp_path, [name for name in casia() if "wangzhe" not in name]))
    assert "900 of the 1,200" in caplog.text


NAMED = {
    "cremad": {
        "AudioWAV/1001_DFA_ANG_XX.wav": ("angry", "1001", "dfa"),
        "AudioWAV/1040_ITH_SAD_X.wav": ("sad", "1040", "ith"),
        "1091_IEO_DIS_HI.wav": ("disgust", "1091", "ieo"),
        "1091_WSI_FEA_LO.wav": ("fear", "1091", "wsi"),
        "1091_WSI_HAP_MD.wav": ("happy", "1091", "wsi"),
        "1091_WSI_NEU_XX.wav": ("neutral", "1091", "wsi"),
        "SentenceFilenames.csv": None,
        "AudioMP3/1001_DFA_ANG_XX.mp3": None,
    },
    "emodb": {
        "wav/03a01Fa.wav": ("happy", "03", "a01"),
        "16B10TB.WAV": ("sad", "16", "b10"),
        "08a02Wc.wav": ("angry", "08", "a02"),
        "08a02La.wav": ("boredom", "08", "a02"),
        "08a02Ea.wav": ("disgust", "08", "a02"),
        "08a02Aa.wav": ("fear", "08", "a02"),
        "08a02Na.wav": ("neutral", "08", "a02"),
        "08a02Xa.wav": None,
        "labtxt/03a01Fa.txt": None,
    },
    "esd": {
        "0001/Angry/0001_000351.wav": ("angry", "0001", "zh-001"),
        "0001/Neutral/0001_000350.wav": ("neutral", "0001", "zh-350"),
        "ESD/0011/Surprise/evaluation/0011_001401.wav": ("surprise", "0011", "en-001"),
        "ESD/0011/Happy/train/0011_000702.wav": ("happy", "0011", "en-002"),
        "0010/伤心/0010_001051.wav": ("sad", "0010", "zh-001"),
        "0001/Angry/0002_000351.wav": None,
        "0001/0001.txt": None,
    },
    "ravdess": {
        "Actor_01/03-01-05-01-02-01-01.wav": ("angry", "01", "02"),
        "Actor_24/03-01-02-02-01-02-24.wav": ("calm", "24", "01"),
        "03-01-01-01-01-01-03.wav": ("neutral", "03", "01"),
        "03-01-06-01-01-01-03.wav": ("fear", "03", "01"),
        "03-01-08-01-01-01-03.wav": ("surprise", "03", "01"),
        "03-02-05-01-02-01-01.wav": None,  # sung
        "01-01-05-01-02-01-01.mp4": None,
        "03-01-09-01-02-01-01.wav": None,
    },
    "savee": {
        "AudioData/DC/a01.wav": ("angry", "DC", "a01"),
        "AudioData/KL/sa15.wav": ("sad", "KL", "sa15"),
        "ALL/JE_su03.wav": ("surprise", "JE", "su03"),
        "JK_n30.wav": ("neutral", "JK", "n30"),
        "AudioData/Info.txt": None,
        "AudioData/XX/a01.wav": None,
    },
    "tess": {
        "OAF_angry/OAF_back_angry.wav": ("angry", "OA", "back"),
        "YAF_pleasant_surprised/YAF_dog_ps.wav": ("surprise", "YA", "dog"),
        "OAF_neutral/OA_bite_neutral.wav": ("neutral", "OA", "bite"),
        "OAF_Sad/OAF_bite_sad.wav": ("sad", "OA", "bite"),
        "OAF_Sad/OAF_bite_gloomy.wav": None,
    },
}


@pytest.mark.parametrize("corpus", NAMED)
def test_published_names(tmp_path, caplog, corpus):
    recordings = read_corpus(corpus, touch(tmp_path, NAMED[corpus]))
    expected = [(name, *row) for name, row in NAMED[corpus].items() if row]
    assert rows(recordings, tmp_path) == sorted(expected)
    for name, row in NAMED[corpus].items():
        assert (f"{name}" in caplog.records[0].getMessage()) == (row is None)
    assert f"{len(expected)} of the {LAYOUTS[corpus].published:,}" in caplog.records[1].getMessage()


@pytest.mark.parametrize("corpus", LAYOUTS)
def test_the_example_matches(tmp_path, corpus):
    assert len(read_corpus(corpus, touch(tmp_path, [LAYOUTS[corpus].example]))) == 1


def test_emodb(shared_data, caplog):
    recordings = read_corpus("emodb", str(shared_data / "emodb"))
    assert recordings["truth"].value_counts().to_dict() == {
        "angry": 127,
        "boredom": 81,
        "neutral": 79,
        "happy": 71,
        "fear": 69,
        "sad": 62,
        "disgust": 46,
    }
    assert sorted(recordings["speaker"].unique()) == "03 08 09 10 11 12 13 14 15 16".split()
    assert recordings["sentence"].nunique() == 10
    assert len(recordings) == 535
    assert not caplog.records


def test_what_is_refused(tmp_path):
    data = touch(tmp_path, ["a.wav", "deep/b.wav"])
    assert "like liuchanhg/angry/201.wav" in refusal("casia", data)
    assert "--corpus iemocap: not one of casia, " in refusal("iemocap", data)
    assert "no such folder" in refusal("casia", f"{data}/nowhere")
    assert "no such folder" in refusal("casia", f"{data}/a.wav")


@pytest.mark.parametrize("deadline", [0.5], indirect=True)
@pytest.mark.usefixtures("deadline")
@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (503, RunError, "cannot be reached ("),
        (403, CorpusError, "cannot be read ("),
        (None, CorpusError, "there is no such folder"),
    ],
)
def test_storage_out_of_reach_is_told_from_a_bad_command(store, fault, error, words):
    store.fault = lambda *_: fault
    with pytest.raises(error) as caught:
        read_corpus("casia", f"s3://{BUCKET}/casia")
    assert str(caught.value).startswith(f"--data s3://{BUCKET}/casia: {words}")


@pytest.mark.parametrize("name", ["CREMA-D", "cremad"])
def test_a_corpus_by_its_usual_name(tmp_path, name):
    assert len(read_corpus(name, touch(tmp_path, [LAYOUTS["cremad"].example]))) == 1


def test_on_an_object_store(tmp_path):
    touch(tmp_path, ["wangzhe/fear/201.wav", "_desktop.ini"])
    fsspec.filesystem("memory").put(str(tmp_path), "/tiny-casia", recursive=True)
    recordings = read_corpus("casia", "memory://tiny-casia")
    assert recordings.iloc[0].tolist() == [
        "memory:///tiny-casia/wangzhe/fear/201.wav", "fear", "wangzhe", "201"
    ]  # fmt: skip


def test_a_manifest(tmp_path):
    frame = pd.DataFrame(
        {"path": ["b.wav", "../a b.wav", "/far/c.wav"], "truth": ["sad", "Anger", "awe"]}
    )
    data = write_manifest(frame, tmp_path / "m.csv")
    recordings = read_corpus("Manifest", data)
    paths = ["/far/c.wav", f"{tmp_path.parent}/a b.wav", f"{tmp_path}/b.wav"]
    assert recordings["path"].tolist() == sorted(paths)
    assert dict(zip(recordings["path"], recordings["truth"], strict=True)) == dict(
        zip(paths, ["awe", "angry", "sad"], strict=True)
    )
    assert f"--data {tmp_path}/none.csv" in refusal("manifest", f"{tmp_path}/none.csv")
