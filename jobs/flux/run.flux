#!/bin/bash
# One experiment under Flux:  flux batch jobs/flux/run.flux configs/quickstart.yaml [section.key=value ...]
# Edit the time in both places and the tasks in both places: 1 for the server and 1 for each client (any number will do). 120 s
# before the time is over the run is stopped at a checkpoint, and submitted again until it is complete. Ranks find each other
# by Flux's PMI, as MPICH does, or Open MPI with flux-pmix; the Open MPI that pip installs does not. Tried with stand-ins only.
#flux: --job-name=fedstil
#flux: --nodes=1
#flux: --nslots=6
#flux: --time-limit=1h
#flux: --output=fedstil-{{id}}.out

set -euo pipefail
. jobs/common.sh
seconds=3600 tasks=6 # the time limit and the slots

launch=(flux run -n "$tasks")
arguments=("$@")
requeue() { flux --parent batch jobs/flux/run.flux "${arguments[@]}"; }

stop_after $((seconds - 120))
run_job run --resume "$@"
