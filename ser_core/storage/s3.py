"""s3://: botocore finds credentials and endpoint, obstore makes the requests."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import botocore.session
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from obstore.store import S3Store

from ser_core.errors import one_line
from ser_core.storage.filesystem import CredentialsError
from ser_core.storage.object_errors import answer_error
from ser_core.storage.object_store import (
    CONNECT_SECONDS,
    PAGE,
    Info,
    ObjectStore,
    OddPage,
)

# obstore asks again 5 minutes before, and botocore renews what has less than 10 minutes left.
_CREDENTIALS_LIFE = timedelta(minutes=10)
_AWS = (".amazonaws.com", ".amazonaws.com.cn")
# botocore's names of where it found credentials → ours, for messages.
_SOURCES = {
    "explicit": "key and secret in fsspec's configuration",
    "env": "environment variable AWS_ACCESS_KEY_ID",
    "shared-credentials-file": "profile {profile} in {credentials_file}",
    "config-file": "profile {profile} in {config_file}",
    "custom-process": "credential_process of profile {profile}",
    "sso": "SSO login of profile {profile}",
    "login": "login of profile {profile}",
    "assume-role": "role of profile {profile}",
    "assume-role-with-web-identity": "web identity role (AWS_WEB_IDENTITY_TOKEN_FILE)",
    "container-role": "role of the container",
    "iam-role": "role of the instance (IMDS)",
}
_EXTRA = {  # of a request: fsspec's s3_additional_kwargs → obstore's options
    "ServerSideEncryption": "server_side_encryption",
    "SSEKMSKeyId": "sse_kms_key_id",
    "RequestPayer": "request_payer",
}


class S3(ObjectStore):
    """Buckets of AWS and of whatever else speaks S3.

    Options in fsspec's configuration have the names that s3fs gave them.
    """

    protocol = ("s3", "s3a")
    options: ClassVar = dict.fromkeys(
        "key secret token anon profile endpoint_url client_kwargs config_kwargs "
        "requester_pays s3_additional_kwargs".split(),
        "",
    )

    # ---- credentials and endpoint ----------------------------------------------------------------

    def credentials_used(self) -> str:
        """Which credentials requests are signed with, for messages; never a secret."""
        if self._is_anonymous:
            return "none, requests are not signed"
        credentials = self._credentials
        source = _SOURCES.get(credentials.method, f"botocore's {credentials.method}")
        files = {name: self._session.get_config_variable(name)
                 for name in ("credentials_file", "config_file")}  # fmt: skip
        return source.format(profile=self._session.profile or "default", **files)

    @functools.cached_property
    def _session(self) -> botocore.session.Session:
        session = botocore.session.Session(profile=self._options.get("profile"))
        if key := self._options.get("key"):
            session.set_credentials(key, self._options.get("secret"), self._options.get("token"))
        return session

    @property
    def _is_anonymous(self) -> bool:
        skipped = os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes")
        return bool(self._options.get("anon")) or skipped

    @functools.cached_property
    def _credentials(self) -> Credentials:
        """Raises CredentialsError where there are none."""
        credentials = self._session.get_credentials()
        if credentials is None:
            profile = self._session.profile or "default"
            raise CredentialsError(
                "no credentials found in the environment (AWS_ACCESS_KEY_ID, "
                f"AWS_WEB_IDENTITY_TOKEN_FILE), profile {profile} in ~/.aws, the container's role "
                "and the instance's role (IMDS); for a public bucket, set AWS_SKIP_SIGNATURE=true"
            )
        return credentials

    def _signing_keys(self) -> Any:
        """What obstore signs with; called again before it expires."""
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LIFE,
        }

    @functools.cached_property
    def _client(self) -> BaseClient:
        return self._new_client({})

    def _new_client(self, options: dict[str, Any]) -> BaseClient:
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_SECONDS,
            signature_version=UNSIGNED if self._is_anonymous else None,
        )
        config = config.merge(Config(**self._options.get("config_kwargs", {})))
        configured = dict(self._options.get("client_kwargs", {}))
        if endpoint := self._options.get("endpoint_url"):
            configured["endpoint_url"] = endpoint
        return self._session.create_client("s3", config=config, **configured | options)

    def _place(self, bucket: str) -> tuple[str, str]:
        """The endpoint and the region of a bucket; one request if it is at AWS."""
        client = self._client
        endpoint, region = client.meta.endpoint_url, client.meta.region_name or "us-east-1"
        if not (urlsplit(endpoint).hostname or "").endswith(_AWS):
            return endpoint, region
        try:
            answer: Any = client.head_bucket(Bucket=bucket)
        except ClientError as error:  # which names the region, too
            answer = error.response
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        there = headers.get("x-amz-bucket-region", region)
        if there != region:
            endpoint = self._new_client({"region_name": there}).meta.endpoint_url
        return endpoint, there

    def _connect(self, bucket: str, seconds: int) -> S3Store:
        signing: Any = {"skip_signature": True}
        with self.translated(bucket):
            if not self._is_anonymous:
                self._signing_keys()  # raises here, and not within obstore
                signing = {"credential_provider": self._signing_keys}
            endpoint, region = self._place(bucket)
        style = (self._client.meta.config.s3 or {}).get("addressing_style")
        if style == "virtual":
            scheme, _, host = endpoint.partition("://")
            endpoint = f"{scheme}://{bucket}.{host}"
        return S3Store(
            bucket,
            endpoint=endpoint,
            aws_endpoint_url_s3=endpoint,  # of the environment, it would come first
            region=region,
            virtual_hosted_style_request=style == "virtual",
            disable_bulk_delete=True,  # one at a time, which every store takes
            client_options=self._client_options(seconds),
            retry_config=self.retry_config,
            **signing,
            **self._extra(),
        )

    def _extra(self) -> Any:
        extra = dict(self._options.get("s3_additional_kwargs", {}))
        if self._options.get("requester_pays"):
            extra["RequestPayer"] = "requester"
        if unknown := sorted(extra.keys() - _EXTRA.keys()):
            raise ValueError(f"s3_additional_kwargs: {', '.join(unknown)} cannot be used")
        return {_EXTRA[name]: value for name, value in extra.items()}

    def _client_options(self, seconds: int) -> Any:
        options = super()._client_options(seconds) | {"allow_http": True}
        verify = self._options.get("client_kwargs", {}).get("verify")
        bundle = verify or self._session.get_config_variable("ca_bundle")
        if verify is False:
            options["allow_invalid_certificates"] = True
        elif isinstance(bundle, str):
            try:
                options["root_certificate"] = Path(bundle).read_bytes()
            except OSError as error:
                raise ValueError(f"certificates (AWS_CA_BUNDLE): {error}") from None
        return options

    @contextmanager
    def translated(self, path: str) -> Iterator[None]:
        """Raises what obstore and botocore raise as built-in exceptions."""
        try:
            with super().translated(path):
                yield
        except ClientError as error:
            answer = error.response.get("Error", {})
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            code, message = answer.get("Code", ""), answer.get("Message", "")
            reason = f"{code}: {message}" if message else code
            raise answer_error(status, code, reason, path, self.credentials_used) from None
        except HTTPClientError as error:
            raise ConnectionError(one_line(error)) from None
        except BotoCoreError as error:
            raise CredentialsError(one_line(error)) from None

    # ---- names that obstore cannot take ----------------------------------------------------------

    def _get(self, bucket: str, key: str, start: int, end: int | None) -> bytes:
        try:
            return super()._get(bucket, key, start, end)
        except ValueError:
            last = "" if end is None else end - 1
            extra = {"Range": f"bytes={start}-{last}"} if start or end else {}
            content: bytes = self._client.get_object(Bucket=bucket, Key=key, **extra)["Body"].read()
            return content

    def _head(self, bucket: str, key: str) -> Info:
        try:
            return super()._head(bucket, key)
        except ValueError:
            found = self._client.head_object(Bucket=bucket, Key=key)
            return {"size": found["ContentLength"], "ETag": found["ETag"], "type": "file"}

    def page_of_odd_names(self, bucket: str, prefix: str, after: str) -> OddPage:
        """A page of a listing through botocore, which takes a name as it is."""
        below = f"{prefix}/" if prefix else ""
        with self.translated(f"{bucket}/{prefix}"):
            page = self._client.list_objects_v2(
                Bucket=bucket, Prefix=below, StartAfter=after, MaxKeys=PAGE
            )
        found = page.get("Contents", [])
        infos = [
            {"name": f"{bucket}/{o['Key']}", "size": o["Size"], "ETag": o["ETag"], "type": "file"}
            for o in found
            if not o["Key"].endswith("/")
        ]
        return OddPage(infos, found[-1]["Key"] if found else after, page["IsTruncated"])
