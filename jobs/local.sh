#!/bin/bash
# A run or a comparison on this machine, up to its end: it goes on after a pause and, so many times, after a crash.
#     jobs/local.sh [-n RANKS] [-r RESTARTS] run configs/quickstart.yaml [section.key=value ...]
#     jobs/local.sh [-n RANKS] [-r RESTARTS] compare configs/compare/quickstart.yaml [...]
# Ctrl-C stops it at a checkpoint, a second one at once; the same command goes on. USR1: a checkpoint, and on.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

ranks=6 restarts=3
while getopts n:r: option; do
  case $option in
    n) ranks=$OPTARG ;;
    r) restarts=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
if [[ $# -lt 2 || ! $1 =~ ^(run|compare)$ ]]; then
  echo "usage: jobs/local.sh [-n RANKS] [-r RESTARTS] run|compare CONFIG [section.key=value ...]" >&2
  exit 2
fi

# In a session of its own, which the terminal's Ctrl-C does not reach. For fault_tolerance: true add --with-ft ulfm.
launch=(setsid mpirun -n "$ranks" --bind-to none)
if ((EUID == 0)); then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
if [[ $1 == run ]]; then set -- run --resume "${@:2}"; fi

stop=USR1
trap 'pass_on $stop; stop=TERM' INT TERM HUP

while true; do
  code=0 signals=0
  run_to_end "$@" || code=$?
  if [[ $stop == TERM ]] || ((code == 0 || code == 2 || code == 74)); then exit "$code"; fi
  if ((code == 75)); then continue; fi
  ((restarts > 0)) || exit "$code"
  restarts=$((restarts - 1))
  echo "jobs: ended with exit code $code; starting again, at most $restarts times after this" >&2
done
