"""gs:// through obstore."""

import os
from typing import Any, ClassVar

from ser_core.storage.object_store import ObjectStore


class Google(ObjectStore):
    """Buckets of Google Cloud Storage; options have the names that gcsfs gave them."""

    protocol = ("gs", "gcs")
    options: ClassVar = {"token": "application_credentials"}  # the path of a JSON file, or anon

    def credentials_used(self) -> str:
        """Which credentials requests are made with, for messages; never a secret."""
        if token := self._options.get("token"):
            return "none" if token == "anon" else "token in fsspec's configuration"
        for name in ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH",
                     "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"):  # fmt: skip
            if os.environ.get(name):
                return f"environment variable {name}"
        default = "~/.config/gcloud/application_default_credentials.json"
        if os.path.exists(os.path.expanduser(default)):
            return default
        return (
            "service account of the instance, as there are neither "
            f"GOOGLE_APPLICATION_CREDENTIALS nor {default}"
        )

    def _config(self) -> Any:
        anonymous = self._options.get("token") == "anon"
        return {"skip_signature": True} if anonymous else super()._config()
