"""Faults of labelling. A recording breaks its decoder by its sampling rate, which no other has.

A classifier breaks while the folder that CHAOS_FAULTS names holds a file for it.
"""

import ctypes
import fcntl
import os
import time

from breaking_rates import CRASH, EAT, HANG, KILL, SLOW


def _break_decoder(rate):
    if rate == HANG:
        ctypes.PyDLL(None).sleep(1_000_000)  # with Python's lock held, as a library that hangs
    elif rate == CRASH:
        os.abort()
    elif rate == KILL:
        os.kill(os.getpid(), 9)
    elif rate == SLOW:
        time.sleep(20)
    elif rate == EAT:
        pages = [bytes(64 << 20) for _ in range(96)]  # 6 GiB, more than may be used
        time.sleep(1_000_000)
        del pages


def _patch_soundfile(module):
    original = module.SoundFile.__init__

    def opened(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if "r" in self.mode:
            _break_decoder(self.samplerate)

    module.SoundFile.__init__ = opened


def _abort_if_told(fault):
    """Aborts while FAULT is there, and once for each FAULT-n."""
    folder = os.environ.get("CHAOS_FAULTS")
    names = os.listdir(folder) if folder else []
    if fault in names:
        os.abort()
    for name in sorted(n for n in names if n.startswith(f"{fault}-")):
        try:
            os.unlink(f"{folder}/{name}")
        except FileNotFoundError:  # another process was faster
            continue
        os.abort()


def _abort_if_chosen():
    """Aborts in each start of the first actor that loads while ``always-one`` is there."""
    path = f"{os.environ.get('CHAOS_FAULTS')}/always-one"
    if not os.path.exists(path):
        return
    import ray

    actor = ray.get_runtime_context().get_actor_id()
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        chosen = file.read() or actor
        file.truncate(0)
        file.write(chosen)
    if chosen == actor:
        os.abort()


def _patch_classifier(module):
    original, original_compute = module.Classifier.__init__, module.Classifier.compute

    def loaded(self, *args, **kwargs):
        _abort_if_told("loading")
        _abort_if_chosen()
        original(self, *args, **kwargs)

    def compute(self, *args, **kwargs):
        _abort_if_told("batch")
        return original_compute(self, *args, **kwargs)

    module.Classifier.__init__, module.Classifier.compute = loaded, compute


PATCHES = {"soundfile": _patch_soundfile, "ser_core.models.classifier": _patch_classifier}
