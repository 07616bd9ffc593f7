"""az:// and abfs:// through obstore."""

import os
from typing import Any, ClassVar

from ser_core.storage.object_store import Info, ObjectStore

_VARIABLES = (  # of the environment, as obstore reads them
    "AZURE_STORAGE_ACCOUNT_KEY AZURE_STORAGE_ACCESS_KEY AZURE_STORAGE_MASTER_KEY "
    "AZURE_STORAGE_SAS_KEY AZURE_STORAGE_SAS_TOKEN AZURE_STORAGE_TOKEN "
    "AZURE_STORAGE_CLIENT_SECRET AZURE_CLIENT_SECRET AZURE_FEDERATED_TOKEN_FILE "
    "AZURE_USE_AZURE_CLI"
).split()


class Azure(ObjectStore):
    """Containers of Azure Blob Storage; options have the names that adlfs gave them."""

    protocol = ("abfs", "az", "abfss")
    LISTS_FROM_A_KEY = False  # obstore lists all that come before it, too
    options: ClassVar = {
        "account_name": "account_name",
        "account_key": "account_key",
        "sas_token": "sas_key",
        "client_id": "client_id",
        "client_secret": "client_secret",
        "tenant_id": "tenant_id",
        "anon": "skip_signature",
    }

    def credentials_used(self) -> str:
        """Which credentials requests are made with, for messages; never a secret."""
        for name in ("account_key", "sas_token", "client_secret"):
            if self._options.get(name):
                return f"{name} in fsspec's configuration"
        for name in _VARIABLES:
            if os.environ.get(name):
                return f"environment variable {name}"
        skipped = self._options.get("anon") or os.environ.get("AZURE_SKIP_SIGNATURE")
        return "none" if skipped else "managed identity of the machine"

    def described(self, found: Any) -> Info:
        """What obstore says of an object, as fsspec describes a file; without its name."""
        info = super().described(found)
        # A listing names the ETag without quotes, a HEAD with them.
        return info | {"ETag": (info["ETag"] or "").strip('"')}
