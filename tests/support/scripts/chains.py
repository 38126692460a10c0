"""Runs of one rank that are broken off: chains.py OUTPUT CONFIG '[[name, [override, ...], [[how, share], ...]], ...]'.

For each name one process after the other, each a --resume of the same run. The first is broken off in the first way named
at its n-th moment, and so on; the last one is left alone. A moment is when a file is brought to the disk, gets its name or is
removed, and when a rank looks whether it is asked to stop. n is this share of the moments of the first run with the same
overrides that was not broken off. A line of JSON for each process goes to OUTPUT/NAME.log: its exit code, and what it said.
    kill      the process is killed
    full      the disk takes no more files
    remove, rename      of the run folder, which is called NAME.away then
"""

import errno
import json
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from fedstil_mpi import run
from fedstil_mpi.checkpoints import recovery  # noqa: F401 - so that the processes find it loaded
from fedstil_mpi.launch import signals
from fedstil_mpi.models.torchvision_cpu import import_models
from fedstil_mpi.planning import checked_output  # noqa: F401

import_models()
output, config, chains = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
torch.set_num_threads(1)


class Moments:
    def __init__(self, folder: Path, how: str, last: int):
        self.folder, self.how, self.last, self.count = folder, how, last, 0
        self.wrap(os, "fsync")
        self.wrap(os, "replace")
        self.wrap(Path, "replace")
        self.wrap(Path, "unlink")
        self.wrap(shutil, "rmtree")
        run.listening = self.listening

    def wrap(self, owner, name):
        inner = getattr(owner, name)

        def wrapped(*arguments, **options):
            self.come(name)
            return inner(*arguments, **options)

        setattr(owner, name, wrapped)

    @contextmanager
    def listening(self):
        with signals.listening() as asked:
            yield lambda: self.come("look") or asked()

    def come(self, what):
        self.count += 1
        if self.how == "full" and self.count >= self.last and what == "fsync":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.count == self.last:
            match self.how:
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "remove":
                    self.how = ""
                    shutil.rmtree(self.folder, ignore_errors=True)
                case "rename":
                    self.folder.rename(f"{self.folder}.away")


def play(name, overrides, how, moment):
    """In a process of its own; returns its exit code, negative where a signal ended it."""
    sys.stdout.flush()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(output / f"{name}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
        moments = Moments(output / name, how, moment)
        try:
            run.main([config, f"output={output}", f"name={name}", "--resume", *overrides])
            code = 0
        except SystemExit as end:
            code = end.code
        (output / "count").write_text(str(moments.count))
    finally:
        sys.stderr.flush()
        os._exit(code)


moments = {}
for name, overrides, ends in chains:
    log = []
    for how, share in [*ends, ["", 1]]:
        code = play(name, overrides, how, max(1, int(share * moments.get(str(overrides), 0))))
        said = (output / f"{name}.said").read_text()
        log.append(json.dumps({"how": how, "code": code, "said": said}) + "\n")
        if how == "rename":
            (output / f"{name}.away").rename(output / name)
    moments.setdefault(str(overrides), int((output / "count").read_text()))
    (output / f"{name}.log").write_text("".join(log))
