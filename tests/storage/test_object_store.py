"""Object stores: names of any form, credentials from where people have them, clear errors."""

# ruff: noqa: ARG001 (fixtures that change the environment)

import http.server
import json
import multiprocessing
import os
import socket
import threading
from types import SimpleNamespace

import fsspec
import pytest
from botocore.exceptions import ClientError
from misbehaving_store import BUCKET
from obstore import exceptions

from ser_core.errors import RecordingError, Status, UsageError
from ser_core.storage.filesystem import CredentialsError, is_transient, resolve
from ser_core.storage.listing import Entry, list_files, stat_file
from ser_core.storage.object_errors import translated_errors
from ser_core.storage.protocols import modules_of, object_store
from ser_core.storage.reading import open_file
from ser_core.storage.s3 import S3

SECRET = "not-a-secret"


def read(key, size=None):
    with open_file(f"s3://{BUCKET}/{key}", size) as handle:
        return handle.read()


def listed(prefix=""):
    return [entry.path for entry in list_files(f"s3://{BUCKET}{prefix}", lambda _: True)]


# ---- names ---------------------------------------------------------------------------------------

ODD = ["b//c.wav", "b/f\tg.wav", "b/\x7f.wav"]


@pytest.mark.parametrize("odd", ODD)
def test_a_name_that_obstore_cannot_take(store, odd):
    store.objects = {"a.wav": b"a", odd: b"odd", "z/y.wav": b"z"}
    uris = [f"s3://{BUCKET}/{name}" for name in sorted(store.objects)]
    assert listed() == uris
    assert read(odd) == read(odd, 3) == b"odd"
    fs, path = resolve(uris[1])
    assert (fs.info(path)["size"], fs.cat_file(path, start=1)) == (3, b"dd")


def test_odd_names_on_many_pages(store, monkeypatch):
    monkeypatch.setattr("ser_core.storage.object_store.PAGE", 10)
    store.page_size = 10
    names = [f"{number:03}{'//' if number % 17 == 5 else '/'}x.wav" for number in range(100)]
    store.objects = dict.fromkeys(names, b"x")
    store.fault = lambda _, attempt: 503 if attempt % 4 == 0 else None
    assert listed() == [f"s3://{BUCKET}/{name}" for name in names]


def test_what_stands_for_a_folder_is_no_file(store):
    store.objects = {"calls/": b"", "calls/1.wav": b"", "calls/2/": b"", "calls/2/3.wav": b"x"}
    files = [f"s3://{BUCKET}/calls/1.wav", f"s3://{BUCKET}/calls/2/3.wav"]
    assert listed("/calls") == listed() == files


def test_a_version_is_spelled_as_in_earlier_outputs(store):
    store.objects = {"a.wav": b"12"}
    (entry,) = list_files(f"s3://{BUCKET}", lambda _: True)
    assert entry == stat_file(entry.path) == Entry(f"s3://{BUCKET}/a.wav", 2, '"1"')


# ---- credentials ---------------------------------------------------------------------------------


@pytest.fixture
def home(store, monkeypatch, tmp_path):
    """A user without credentials, whose server is the store."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.server_port}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    object_store.cache_clear()
    store.objects = {"x.wav": b"x"}
    return tmp_path


def refusal(store):
    """What is said where the store refuses whoever asks."""
    store.fault = lambda *_: 400
    fs, path = resolve(f"s3://{BUCKET}/x.wav")
    with pytest.raises(CredentialsError) as caught:
        fs.cat_file(path)
    assert not is_transient(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


KEYS = f"aws_access_key_id = tester\naws_secret_access_key = {SECRET}\n"


def test_credentials_of_the_environment(home, store, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert read("x.wav") == b"x"
    assert "ExpiredToken (credentials: environment variable AWS_ACCESS_KEY_ID)" in refusal(store)


def test_credentials_of_a_profile(home, store, monkeypatch):
    (home / "credentials").write_text(f"[default]\n{KEYS}[team]\n{KEYS}")
    assert f"(credentials: profile default in {home}/credentials)" in refusal(store)
    monkeypatch.setenv("AWS_PROFILE", "team")
    object_store.cache_clear()
    assert f"(credentials: profile team in {home}/credentials)" in refusal(store)
    (home / "credentials").unlink()
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    (home / "config").write_text(f"[profile team]\n{KEYS}endpoint_url = {endpoint}\n")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    object_store.cache_clear()
    assert f"(credentials: profile team in {home}/config)" in refusal(store)


@pytest.fixture
def metadata_server():
    """What answers on machines of AWS, with credentials of an instance and of a container."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            keys = {"Code": "Success", "AccessKeyId": "role", "SecretAccessKey": SECRET}
            keys |= {"Token": "t", "Expiration": "2999-01-01T00:00:00Z"}
            text = "our-role" if self.path.endswith("security-credentials/") else json.dumps(keys)
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_credentials_of_a_container_and_of_an_instance(home, store, monkeypatch, metadata_server):
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata_server}/keys")
    assert read("x.wav") == b"x"
    assert "(credentials: role of the container)" in refusal(store)
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata_server)
    object_store.cache_clear()
    assert "(credentials: role of the instance (IMDS))" in refusal(store)


def test_no_credentials(home, store, monkeypatch):
    fs, path = resolve(f"s3://{BUCKET}/x.wav")
    with pytest.raises(CredentialsError, match=r"no credentials found in the environment .*IMDS"):
        fs.cat_file(path)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    object_store.cache_clear()
    with pytest.raises(CredentialsError, match=r"profile \(nobody\) could not be found"):
        resolve(f"s3://{BUCKET}")[0].cat_file(path)
    assert store.requests == []


@pytest.mark.parametrize("of_fsspec", [True, False])
def test_a_public_bucket(home, store, monkeypatch, of_fsspec):
    if of_fsspec:
        monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})
    else:
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    store.objects["b//y.wav"] = b"y"
    assert (read("x.wav"), read("b//y.wav")) == (b"x", b"y")
    store.fault = lambda *_: 403
    with pytest.raises(PermissionError, match=r"AccessDenied \(credentials: none"):
        resolve(f"s3://{BUCKET}")[0].cat_file(f"{BUCKET}/x.wav")


def test_credentials_of_fsspec(home, store, monkeypatch):
    configured = {"key": "k", "secret": SECRET, "use_listings_cache": False}
    configured["client_kwargs"] = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setitem(fsspec.config.conf, "s3", configured)
    assert read("x.wav") == b"x"
    assert "(credentials: key and secret in fsspec's configuration)" in refusal(store)


def test_an_option_of_fsspec_that_cannot_be_used_is_named(home, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", {"version_aware": True})
    with pytest.raises(UsageError, match="s3://: version_aware in fsspec's configuration"):
        resolve(f"s3://{BUCKET}")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"endpoint_url": "not a url"}, "Invalid endpoint: not a url"),
        ({"config_kwargs": {"nonsense": 1}}, "nonsense"),
        ({"client_kwargs": {"nonsense": 1}}, "nonsense"),
        ({"client_kwargs": {"verify": "/nowhere.pem"}}, "/nowhere.pem"),
        ({"s3_additional_kwargs": {"ACL": "x"}}, "s3_additional_kwargs: ACL cannot be used"),
    ],
)
def test_a_configuration_that_is_wrong_is_one_line(home, monkeypatch, options, reason):
    configured = {"key": "k", "secret": SECRET} | options
    monkeypatch.setitem(fsspec.config.conf, "s3", configured)
    for call in (listed, lambda: read("x.wav"), lambda: read("x.wav", 3)):
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value).startswith(f"s3://{BUCKET}: ")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["s3://", "s3:///x.wav", "s3://a b/x.wav", "gs://名/x.wav"])
def test_what_cannot_name_a_bucket_is_not_there(uri):
    with pytest.raises(FileNotFoundError, match="cannot name a bucket"):
        list(list_files(uri, lambda _: True))
    assert stat_file(uri).size is None
    with pytest.raises(RecordingError) as caught, open_file(uri, 3):
        pass
    assert caught.value.status is Status.NOT_FOUND


# ---- endpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, 301, 403])
def test_a_bucket_at_aws_is_asked_where_it_is(home, monkeypatch, error):
    """As botocore would find out; obstore takes the region as given."""
    headers = {"x-amz-bucket-region": "cn-north-1"}
    answer = {"ResponseMetadata": {"HTTPHeaders": headers, "HTTPStatusCode": error or 200}}

    def head_bucket(Bucket):  # noqa: N803
        if error:
            raise ClientError(answer, "HeadBucket")
        return answer

    fs, new_client = S3(), S3._new_client
    monkeypatch.delenv("AWS_ENDPOINT_URL")

    def client(self, options):
        made = new_client(self, options)
        return SimpleNamespace(meta=made.meta, head_bucket=head_bucket)

    monkeypatch.setattr(S3, "_new_client", client)
    assert fs._place("calls") == ("https://s3.cn-north-1.amazonaws.com.cn", "cn-north-1")


def test_a_store_that_wants_the_bucket_in_the_name_of_the_host(home, monkeypatch):
    monkeypatch.setitem(
        fsspec.config.conf,
        "s3",
        {"key": "k", "secret": SECRET, "config_kwargs": {"s3": {"addressing_style": "virtual"}}},
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://oss-cn-beijing.example.com")
    config = resolve("s3://calls")[0].connection("calls").config
    assert config["endpoint"] == "https://calls.oss-cn-beijing.example.com"
    assert config["virtual_hosted_style_request"] == "true"


def test_a_server_that_is_away(store, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    for url in (os.environ["AWS_ENDPOINT_URL"], "http://no-such-host.invalid"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        object_store.cache_clear()
        with pytest.raises(ConnectionError) as caught:
            resolve(f"s3://{BUCKET}")[0].cat_file(f"{BUCKET}/x.wav")
        assert is_transient(caught.value)
        assert url in str(caught.value)
        assert "refused" in str(caught.value) or "lookup" in str(caught.value)
        assert "\n" not in str(caught.value)


# ---- other clouds --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "variables", "used"),
    [
        ("gs://b", {}, "service account of the instance"),
        ("gs://b", {"GOOGLE_APPLICATION_CREDENTIALS": "/k.json"}, "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://c", {}, "managed identity"),
        ("abfs://c", {"AZURE_STORAGE_SAS_TOKEN": SECRET}, "variable AZURE_STORAGE_SAS_TOKEN"),
    ],
)
def test_which_credentials_of_another_cloud_are_used(uri, variables, used, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    text = resolve(uri)[0].credentials_used()
    assert used in text
    assert SECRET not in text


def test_a_metadata_server_that_is_away_is_a_matter_of_credentials():
    raised = exceptions.GenericError(
        "Generic GCS error: Error performing GET http://metadata.google.internal/x in 5ms - HTTP "
        'error: error sending request\n\nDebug source:\nCustom { error: "failed to lookup" }'
    )
    with (
        pytest.raises(ConnectionError) as caught,
        translated_errors("b/x", lambda: "the machine's"),
    ):
        raise raised
    assert str(caught.value) == (
        "http://metadata.google.internal/x: HTTP error: error sending request: failed to lookup "
        "(credentials: the machine's)"
    )


def test_a_container_without_an_account_is_refused(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    object_store.cache_clear()
    fs, path = resolve("az://calls/x.wav")
    with pytest.raises(UsageError, match="Account must be specified"):
        fs.cat_file(path)


def test_a_key_of_google_that_is_missing_is_refused(monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    object_store.cache_clear()
    fs, path = resolve("gs://calls/x.wav")
    with pytest.raises(UsageError, match=r"/nowhere/key\.json"):
        fs.cat_file(path)


# ---- child processes -----------------------------------------------------------------------------


def set_environment(variables):
    os.environ.update(variables)


def test_a_child_of_a_forkserver_that_has_imported_the_client(store):
    """As the decoders are; the server itself must not have started any thread of the client."""
    store.objects = {"x.wav": b"x"}
    assert read("x.wav") == b"x"  # this process has its own
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(modules_of(f"s3://{BUCKET}/x.wav"))
    # The server has the environment of its start, which may have been another test's.
    with context.Pool(2, set_environment, [dict(os.environ)]) as pool:
        assert pool.map_async(read, ["x.wav"] * 4).get(60) == [b"x"] * 4
