"""Makes libraries fail in the processes of a job: this folder is on their PYTHONPATH."""

import importlib.abc
import importlib.util
import sys

import label_faults
import train_faults

_patches = label_faults.PATCHES | train_faults.PATCHES  # module: what to do with it


class _Finder(importlib.abc.MetaPathFinder):
    """Patches a module right after its import."""

    def find_spec(self, name, path=None, target=None):  # noqa: ARG002
        if name not in _patches:
            return None
        patch = _patches.pop(name)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder())
