"""The commands of `python -m fedstil_mpi.data`, a module each: `add` describes its arguments, `run` carries them out."""
