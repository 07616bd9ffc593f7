"""Tables of every format become the same Arrow tables, or one line says what is wrong where."""

import gzip
import json
import random
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ser_core.sources import json_tables, tables, text_files
from ser_core.sources.tables import TABLE_EXTENSIONS, TableFile, conform, union_schema


def read(path):
    """The rows of a table file."""
    table = TableFile(str(path))
    return [row for page in table.read(table.schema()) for row in page.to_pylist()]


def schema(path):
    return dict(zip((s := TableFile(str(path)).schema()).names, s.types, strict=True))


def write(path, text):
    """Writes text, compressed as the name says."""
    data = text if isinstance(text, bytes) else text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, "zstd").to_pybytes()
    path.write_bytes(data)
    return path


@pytest.fixture
def small_pages(monkeypatch):
    """Pages of two rows."""
    monkeypatch.setattr(text_files, "PAGE_ROWS", 2)
    monkeypatch.setattr(tables, "PAGE_ROWS", 2)


ROWS = [
    {"path": "a.wav", "text": 'He said "no", twice'},
    {"path": "名 字.wav", "text": "two\nlines; a\ttab | a pipe"},
    {"path": "c.wav", "text": ""},
]
CSV = 'path,text\na.wav,"He said ""no"", twice"\n名 字.wav,"two\nlines; a\ttab | a pipe"\nc.wav,\n'


def text_of(extension):
    if extension.startswith("csv"):
        return CSV
    if extension.startswith("tsv"):
        header, rest = CSV.split("\n", 1)
        return header.replace(",", "\t") + "\n" + rest.replace(".wav,", ".wav\t")
    if extension.startswith("json") and not extension.startswith("jsonl"):
        return json.dumps(ROWS, indent=2)
    return "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("extension", TABLE_EXTENSIONS)
@pytest.mark.parametrize("windows", [False, True])
def test_every_format_gives_the_same_rows(tmp_path, extension, windows):
    path = tmp_path / f"m.{extension.upper() if windows else extension}"
    if extension == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        text = text_of(extension)
        bom = "\ufeff" if windows else ""
        # Within quotes, a line end is part of the value.
        text = text.replace("\n", "\r\n").replace("two\r\n", "two\n") if windows else text
        write(path.with_suffix(path.suffix.lower()), bom + text)
        path.with_suffix(path.suffix.lower()).rename(path)
    assert read(path) == ROWS
    assert schema(path) == {"path": pa.string(), "text": pa.string()}


def test_pages_are_small(tmp_path):
    for name, head in (("m.csv", "path,n\n"), ("m.jsonl", ""), ("m.json", "[")):
        row = "{0}.wav,{0}\n" if name == "m.csv" else '{{"path": "{0}.wav", "n": "{0}"}}\n'
        between, end = (",", "]") if name == "m.json" else ("", "")
        body = between.join(row.format(n) for n in range(25_000))
        table = TableFile(str(write(tmp_path / name, head + body + end)))
        pages = list(table.read(table.schema()))
        assert [len(page) for page in pages] == [10_000, 10_000, 5000]
        assert pages[-1]["n"].to_pylist()[-1] == "24999"


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.csv"])
def test_pages_of_long_rows_are_smaller(tmp_path, monkeypatch, name):
    monkeypatch.setattr(text_files, "_PAGE_CHARACTERS", 10_000)
    rows = [{"path": "x" * 4000}] * 7
    lines = "\n".join(map(json.dumps, rows))
    text = {"m.json": json.dumps(rows), "m.jsonl": lines}.get(
        name, "path\n" + ("x" * 4000 + "\n") * 7
    )
    table = TableFile(str(write(tmp_path / name, text)))
    assert [len(page) for page in table.read(table.schema())] == [3, 3, 1]


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.csv"])
def test_reading_is_streamed(tmp_path, name):
    """Memory does not grow with the file."""
    row = json.dumps({"path": "x" * 500})
    lines = {"m.jsonl": "\n", "m.json": ",", "m.csv": "\n"}[name].join(
        [row if name != "m.csv" else "x" * 500] * 60_000
    )
    text = {"m.json": f"[{lines}]", "m.csv": f"path\n{lines}"}.get(name, lines)  # 30 MB
    table = TableFile(str(write(tmp_path / name, text)))
    tracemalloc.start()
    assert sum(len(page) for page in table.read(table.schema())) == 60_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 25e6  # bytes; the file has 30 MB


@pytest.mark.parametrize("extension", ["csv", "tsv", "jsonl", "ndjson", "json"])
def test_a_line_that_never_ends_is_refused(tmp_path, monkeypatch, extension):
    monkeypatch.setattr(text_files, "LONGEST", 1000)
    with pytest.raises(pa.ArrowInvalid, match="a line has more than"):
        TableFile(str(write(tmp_path / f"m.{extension}", "x" * 2000))).schema()


# ---- CSV -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["csv", "tsv"])
@pytest.mark.parametrize("delimiter", ",;\t|")
def test_the_delimiter_is_the_header_s(tmp_path, delimiter, extension):
    others = "a, b, c, d; e; f; g | h | i | j"
    if delimiter == "\t":
        rows = [["path", others if extension == "tsv" else "a,b", "n"], ["x,;|.wav", "1,5", "007"]]
        text = "\n".join("\t".join(row) for row in rows)
    else:
        rows = [["path", others, "n"], ["x,;|.wav", "1,5", "007"]]
        text = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    expected = [dict(zip(*rows, strict=True))]
    assert read(write(tmp_path / f"m.{extension}", text)) == expected


def test_a_table_of_one_column(tmp_path):
    assert read(write(tmp_path / "m.csv", "\n\npath\na.wav\n\nb|;.wav\n")) == [
        {"path": "a.wav"},
        {"path": "b|;.wav"},
    ]


def test_quotes_of_a_table_with_tabs_are_text_unless_they_enclose_fields(tmp_path):
    """Common Voice quotes nothing; spreadsheets and pandas do."""
    bare = 'path\tsentence\n1.mp3\t"Yes," she said.\n2.mp3\t"never closed\n3.mp3\tplain "x"\n'
    assert [row["sentence"] for row in read(write(tmp_path / "m.tsv", bare))] == [
        '"Yes," she said.',
        '"never closed',
        'plain "x"',
    ]
    quoted = 'path\tsentence\n1.mp3\t"""Yes,"" she said."\n"2,3.mp3"\tplain\n'
    assert read(write(tmp_path / "m.tsv", quoted)) == [
        {"path": "1.mp3", "sentence": '"Yes," she said.'},
        {"path": "2,3.mp3", "sentence": "plain"},
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,x\na.wav,1\nb.wav\n", "line 3: 1 fields instead of 2"),
        ("\npath,x\na.wav,1\nb.wav,1,2\n", "line 4: 3 fields instead of 2"),
        ('path,x\na.wav,"1\nb.wav,2\nc.wav,"3"\n', "line 4: ',' expected after '\"'"),
        ('path,x\na.wav,"1\nb.wav,2\n', "line 3: unexpected end of data"),
    ],
)
def test_a_broken_line_of_csv_is_named(tmp_path, text, reason):
    with pytest.raises(pa.ArrowInvalid) as caught:
        read(write(tmp_path / "m.csv", text))
    assert str(caught.value) == reason


def test_long_texts(tmp_path):
    text = "word " * 100_000
    assert read(write(tmp_path / "m.csv", f'path,text\na.wav,"{text}"\n'))[0]["text"] == text


@given(
    rows=st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), min_size=2, max_size=2
        ),
        min_size=1,
    ),
    delimiter=st.sampled_from(",;|"),
)
@settings(
    max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_quoted_text_is_read_as_it_was(tmp_path, rows, delimiter):
    lines = [delimiter.join('"' + c.replace('"', '""') + '"' for c in r) for r in rows]
    path = write(tmp_path / "m.csv", f"path{delimiter}x\n" + "\n".join(lines) + "\n")
    assert read(path) == [{"path": first, "x": second} for first, second in rows]


# ---- JSON ----------------------------------------------------------------------------------------


def one_value_a_line(path, *values):
    return write(path, "".join(json.dumps({"x": value}) + "\n" for value in values))


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3, 2.5], pa.float64()),
        ([2.5, 1.5, 3], pa.float64()),
        ([None, None, "a"], pa.string()),
        (["a", "b", None], pa.string()),
        ([None, None, None], pa.null()),
        ([True, False, None], pa.bool_()),
        ([2**62 + 1, 1, 2], pa.int64()),
        ([[], [], [1]], pa.list_(pa.int64())),
        ([[1], [2], [2.5]], pa.list_(pa.float64())),
        ([{"a": 1}, {"a": 2}, {"b": "x"}], pa.struct({"a": pa.int64(), "b": pa.string()})),
        ([{}, {}, {"a": [1]}], pa.struct({"a": pa.list_(pa.int64())})),
        (["2020-01-01", "2020-01-02", "2020-01-03 10:00:00"], pa.string()),
    ],
)
def test_a_column_of_json_has_one_type_in_all_pages(tmp_path, values, kind):
    path = one_value_a_line(tmp_path / "m.jsonl", *values)
    assert schema(path) == {"x": kind}
    found = [row["x"] for row in read(path)]
    assert [without_nulls(value) for value in found] == [without_nulls(value) for value in values]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize(
    "values",
    [
        [7, "a"],
        [7, 8, 9, "a"],  # on pages that have one type each
        ["a", "b", 1.0],
        [1.5, True],
        [True, True, 1],
        [1, [2]],
        [{"a": 1}, {"a": "x"}],
        [["word", 0.5]],
        [{}, {}],
        [[{}]],
        [2**70, 1],
        [{"a": 1}, "none"],
    ],
)
def test_values_without_a_common_type_become_text(tmp_path, values):
    path = one_value_a_line(tmp_path / "m.jsonl", *values)
    assert schema(path) == {"x": pa.string()}
    assert [row["x"] for row in read(path)] == [
        value if isinstance(value, str) else json.dumps(value) for value in values
    ]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=5,
)


@pytest.mark.usefixtures("small_pages")
@given(values=st.lists(JSON, min_size=1, max_size=6), array=st.booleans())
@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_json_is_kept_and_can_be_written(tmp_path, values, array):
    rows = [{"x": value} for value in values]
    path = tmp_path / "m.json"
    write(path, json.dumps(rows) if array else "\n".join(map(json.dumps, rows)))
    table = TableFile(str(path))
    pages = list(table.read(table.schema()))
    pq.write_table(pa.concat_tables(pages), tmp_path / "o.parquet")
    found = pq.read_table(tmp_path / "o.parquet")["x"].to_pylist()
    for value, kept in zip(values, found, strict=True):
        as_text = isinstance(kept, str) and not isinstance(value, str)
        assert without_nulls(json.loads(kept) if as_text else kept) == without_nulls(value)


def without_nulls(value):
    """What a struct has beside the fields that others of its column have."""
    if isinstance(value, dict):
        return {key: without_nulls(v) for key, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("extension", ["json", "jsonl"])
def test_lines_and_arrays_are_told_by_content(tmp_path, extension):
    rows = [{"path": "a.wav", "n": 1}, {"path": "b].wav", "n": None}]
    for text in (
        "\n\n" + "\n".join(map(json.dumps, rows)),
        json.dumps(rows),
        "\n [\n" + json.dumps(rows, indent=4)[1:] + "\n",
    ):
        assert read(write(tmp_path / f"m.{extension}", text)) == rows


def test_an_array_is_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(json_tables, "_CHUNK", 7)
    rows = [{"path": f"{n}.wav", "x": {"y": [n, "],}"]}} for n in range(20)]
    found = read(write(tmp_path / "m.json", "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]"))
    assert [row["path"] for row in found] == [row["path"] for row in rows]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"path": "a"}\n\n{"path": \n', "line 3: Expecting value at character 11"),
        ('{"path": "a"}\n{"path": "b"} {}\n', "line 2: Extra data at character 15"),
        ('\n\n{"path": "a"}\n[1]\n', "line 4: not a JSON object"),
        ('{"path": "a"}\n7\n', "line 2: not a JSON object"),
        ('{"path": "a", "x": {"y": 1, "y": 2}}\n', "line 1: `y` is there twice"),
        ('{"x": ' + "9" * 5000 + "}", "line 1: Exceeds the limit"),
        ('{"x": ' + "[" * 100_000, "line 1: nested too deeply"),
        ('[{"path": "a"}, {"path": "b"', "row 2: Expecting ',' delimiter"),
        ('[{"path": "a"}, 7]', "row 2: not a JSON object"),
        ('[{"path": "a"}', "row 2: Expecting value"),
        ('[{"path": "a"}] {}', "there is more after the end of the array"),
        ("hello", "line 1: Expecting value at character 1"),
    ],
)
def test_a_broken_line_of_json_is_named(tmp_path, text, reason):
    with pytest.raises(pa.ArrowInvalid) as caught:
        read(write(tmp_path / "m.json", text))
    assert str(caught.value).startswith(reason)


def test_a_broken_element_does_not_have_the_whole_array_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_tables, "LONGEST", 1000)
    monkeypatch.setattr(json_tables, "_CHUNK", 100)
    text = '[\n{"path": "a"},\n{"path": "never closed},\n' + '{"path": "x"},\n' * 10_000
    with write(tmp_path / "m.json", text).open() as file:
        with pytest.raises(pa.ArrowInvalid, match="row 2: "):
            json_tables.json_schema(file)
        assert file.tell() < 20_000


def test_names_of_files_that_are_not_utf8_are_text(tmp_path):
    path = write(tmp_path / "m.jsonl", json.dumps({"path": "a\udcd6.wav", "x": ["\udcd6", 1]}))
    assert read(path) == [{"path": r"a\udcd6.wav", "x": r'["\udcd6", 1]'}]


# ---- compression, Parquet, several tables --------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_compressed_table_is_an_error(tmp_path, suffix):
    noise = random.Random(0).randbytes(100_000).hex()
    path = write(tmp_path / f"m.csv{suffix}", "path\n" + noise)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(pa.ArrowInvalid, match="Truncated compressed stream"):
        read(path)
    path.write_text("path\na.wav\n")
    with pytest.raises(pa.ArrowInvalid, match="failed"):
        read(path)


def test_compressed_tables_that_were_joined(tmp_path):
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress(b"path\na.wav\n") + gzip.compress(b"b.wav\n"))
    assert read(path) == [{"path": "a.wav"}, {"path": "b.wav"}]


def test_text_that_is_not_utf8_is_an_error(tmp_path):
    for encoding in ("gbk", "utf-16"):
        with pytest.raises(UnicodeDecodeError):
            read(write(tmp_path / "m.csv", "path\n名字.wav\n".encode(encoding)))


def test_columns_of_parquet_may_have_dots(tmp_path):
    table = pa.table({"a": [1], "a.b": [2], "c": [{"d": 3}]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert read(tmp_path / "m.parquet") == table.to_pylist()
    wanted = pa.schema([("a.b", pa.int64())])
    (page,) = TableFile(str(tmp_path / "m.parquet")).read(wanted)
    assert page.to_pylist() == [{"a.b": 2}]


def test_columns_of_several_tables_have_one_type():
    first = pa.table({"n": [1], "x": [{"a": 1}], "only": ["y"], "time": pa.array([1], pa.date32())})
    second = pa.table({"x": ["text"], "n": [2.5], "time": ["noon"]})
    union = union_schema([first.schema, second.schema])
    assert dict(zip(union.names, union.types, strict=True)) == {
        "n": pa.float64(),
        "x": pa.string(),
        "only": pa.string(),
        "time": pa.string(),
    }
    assert conform(first, union).to_pylist() == [
        {"n": 1.0, "x": '{"a": 1}', "only": "y", "time": "1970-01-02"}
    ]
    assert conform(second, union).to_pylist() == [
        {"n": 2.5, "x": "text", "only": None, "time": "noon"}
    ]
    assert len(conform(first, pa.schema([]))) == 1
