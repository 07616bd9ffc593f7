"""Faults of training.

A file ``FAULT@PLACE`` or ``FAULT@PLACE-n`` in the folder that TRAINING_FAULTS names breaks the
first worker that comes to that place, once. SILENCE_SECONDS and RETRY_SECONDS make a run impatient.
"""

import os
import signal
import sys
import time


def _raise_bug():
    raise IndexError("made by the test")


_FAULTS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(0),
    "leave": lambda: sys.exit(0),
    "hang": lambda: time.sleep(1_000_000),
    "bug": _raise_bug,
}


def _break_at(place):
    folder = os.environ.get("TRAINING_FAULTS")
    for name in sorted(os.listdir(folder)) if folder else ():
        fault, _, where = name.partition("@")
        if where.partition("-")[0] == place:
            try:
                os.unlink(f"{folder}/{name}")
            except FileNotFoundError:  # another worker was faster
                continue
            _FAULTS[fault]()


def _patch_trainer(module):
    init, train_epoch = module.Trainer.__init__, module.Trainer.train_epoch

    def built(self, *args, **kwargs):
        _break_at("build")
        init(self, *args, **kwargs)

    def trained(self, dataset):
        _break_at(f"epoch{self.epochs + 1}")
        return train_epoch(self, dataset)

    module.Trainer.__init__, module.Trainer.train_epoch = built, trained


def _patch_storage(module):
    close = module._LocalFile.close

    def closed(self):
        if not self.closed and self._path.endswith(".pt"):
            _break_at(f"upload{self._path.split('/')[-2].removeprefix('epoch-')}")
        close(self)

    module._LocalFile.close = closed
    module._RETRY_SECONDS = float(os.environ.get("RETRY_SECONDS", module._RETRY_SECONDS))


def _patch_driver(module):
    module._SILENCE_SECONDS = float(os.environ.get("SILENCE_SECONDS", module._SILENCE_SECONDS))


PATCHES = {
    "ser_core.training.trainer": _patch_trainer,
    "ser_core.training.checkpoint_storage": _patch_storage,
    "ser_core.training.driver": _patch_driver,
}
