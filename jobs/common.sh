# shellcheck shell=bash
# What the job scripts have in common; they source it. Edit here what depends on the site.

# How the ranks are started. mpirun knows the nodes from Slurm. With srun instead, the MPI library has to be built for
# Slurm: a site's own Open MPI usually is for pmix, MPICH for pmi2 (`srun --mpi=list`); the Open MPI that pip installs
# is not. Where the two do not know each other, the run says so and ends.
launch=(mpirun --bind-to none)
# launch=(mpirun --bind-to none --with-ft ulfm) # for fault_tolerance: true
# launch=(srun --mpi=pmix --cpu-bind=none --kill-on-bad-exit)
# Several networks between the nodes? Name one for mpirun: export OMPI_MCA_btl_tcp_if_include=ib0

jobs=$(dirname "${BASH_SOURCE[0]}")
# shellcheck disable=SC1091  # made by `make setup`; without it python and mpirun are those of a module or of conda
if [[ -f $jobs/../.venv/bin/activate ]]; then . "$jobs/../.venv/bin/activate"; fi

pid='' signals=0
pass_on() {
  signals=$((signals + 1))
  [[ -z $pid ]] || kill "-$1" "$pid" 2>/dev/null || true
}
trap 'pass_on USR1' USR1

# Run a command in the background up to its end, with USR1 passed on to it; returns its exit code.
supervise() {
  local code seen
  "$@" </dev/null &
  pid=$!
  while seen=$signals; code=0; wait "$pid" || code=$?; ((signals > seen)); do :; done # a signal ends `wait` early
  pid=''
  return "$code"
}

# Run `python -m fedstil_mpi.$1 ...` under the launcher; returns its exit code. 75 after a signal, whatever launchers make
# of ranks that end one after the other, or of a signal that came before the program listened; but 2 and 74 (a full disk),
# which are for the user to mend, stay. 0 is believed only if every run has left the mark of its end, which it leaves last: launchers
# return 0, too, when a node has died.
run_to_end() {
  local code=0 folder folders
  folders=$(python "$jobs/folders.py" "$@") || return
  ((signals == 0)) || return 75
  supervise "${launch[@]}" python -m "fedstil_mpi.$1" "${@:2}" || code=$?
  ((signals == 0 || code == 0 || code == 2 || code == 74)) || code=75
  ((code == 0)) || return "$code"
  while read -r folder; do
    [[ -e $folder/complete ]] && continue
    echo "jobs: $folder has no file complete, so the run did not come to its end, though the launcher returned 0" >&2
    code=1
  done <<<"$folders"
  return "$code"
}

# Put this job back into Slurm's queue; job files of other schedulers have their own. Of an array only this task: the
# last one's SLURM_JOB_ID is that of the array.
requeue() {
  local job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
  scontrol requeue "${job:-$SLURM_JOB_ID}"
}

# For schedulers that send no signal before the time is over: stop at a checkpoint after so many seconds.
stop_after() {
  (sleep "$1" && kill -USR1 $$) </dev/null &>/dev/null &
}

# As a job: it goes back into the queue where it was asked to stop, and goes on when it is started again.
run_job() {
  local code=0
  run_to_end "$@" || code=$?
  if ((code == 75)); then
    requeue || echo "jobs: not requeued; submit it again, and it goes on" >&2
  fi
  return "$code"
}
