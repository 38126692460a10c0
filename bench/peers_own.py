"""The task of bench/peers.py with this program, on one rank. peers_own.py FOLDER CONFIG section.key=value ..."""

import sys

import h5py
import numpy as np
import torch
from peers_task import Meter, read

from fedstil_mpi.comm.start import start
from fedstil_mpi.config import loading
from fedstil_mpi.federation.trainer import OneByOne
from fedstil_mpi.results.reading import runs
from fedstil_mpi.run import execute


def main() -> None:
    meter = Meter(read(sys.argv[1]).marks)
    train = OneByOne.train

    def timed(trainer, round, *given):
        meter.begin(round)
        return train(trainer, round, *given)

    OneByOne.train = timed
    source = loading.read(sys.argv[2], sys.argv[3:])
    with start() as world:
        execute(world, source, detail="brief")
    run = runs.read(f"{source['output']}/{source['name']}")
    with h5py.File(run.folder / "results.h5") as file:
        losses = file["training/reports"][:, :, 0]
    meter.losses = np.nanmean(losses, 1).tolist()
    sent = run.ledger["raw"][(run.ledger["direction"] == "C2S") & (run.ledger["kind"] == "weights")]
    train = run.config["train"]
    meter.report(
        {
            "clients": run.clients,
            "drawn": int(run.online[0].sum()),
            "batch": train["batch"],
            "steps": train["steps"],
            "travelling weights": int(sent[0]) // 4,
            "optimiser": f"Adam, lr {train['lr']}, weight decay {train['weight_decay']}, fused True",
            "threads": torch.get_num_threads(),
        }
    )


if __name__ == "__main__":
    main()
