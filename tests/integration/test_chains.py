"""Runs that are broken off at any moment, again and again, are whole in the end, and leave nothing behind."""

import json
import random
import re
import subprocess
import sys

import pytest

from support import SMALL, TINY
from support.launch import SCRIPTS, alone, environment, find_mpirun
from support.results import different, lines, results

METHODS = ("single", "fedavg", "fedstil", "fedcurv", "fedweit", "icarl")
LEFT = ["complete", "config.yaml", "environment.json", "log.txt", "metrics.csv", "metrics.jsonl", "results.h5"]
CODES = {"kill": -9, "full": 74, "remove": 74, "rename": 74, "": 0}


def chains(methods, count, ways, most):
    """Of each method one run that is not broken off, then so many that are, up to `most` times each."""
    draw = random.Random(8)
    for method in methods:
        yield f"{method}-0", method, []
        for number in range(1, count + 1):
            ways_here = [draw.choice(ways) for _ in range(draw.randint(1, most))]
            yield f"{method}-{number}", method, [[way, draw.uniform(0.02, 0.99)] for way in ways_here]


def check(folder, cases):
    given = [[name, [SMALL, f"method.name={method}"], ends] for name, method, ends in cases]
    done = alone(SCRIPTS / "chains.py", folder, TINY, json.dumps(given), timeout=7200)
    assert done.returncode == 0, done.stderr
    codes = []
    for name, method, ends in cases:
        assert sorted(path.name for path in (folder / name).iterdir()) == LEFT, name
        whole = folder / f"{method}-0"
        assert not different(results(folder / name), results(whole)), (name, ends)
        assert lines(folder / name) == lines(whole), (name, ends)
        assert (folder / name / "metrics.csv").read_text() == (whole / "metrics.csv").read_text(), (name, ends)
        for line in map(json.loads, (folder / f"{name}.log").read_text().splitlines()):
            codes.append(line["code"])
            assert line["code"] in (0, CODES[line["how"]]), (
                name,
                ends,
                line,
            )  # 0: it came to its end before that moment
            assert len(line["said"].splitlines()) == (line["code"] == 74), (name, ends, line)
    assert sum(code != 0 for code in codes) > sum(len(ends) for _, _, ends in cases) / 2


@pytest.mark.slow
def test_runs_that_are_broken_off(tmp_path):
    cases = [
        ("fedstil-0", "fedstil", []),
        ("killed", "fedstil", [["kill", 0.3], ["kill", 0.6]]),
        ("full", "fedstil", [["full", 0.95]]),
        ("renamed", "fedstil", [["rename", 0.6]]),
    ]
    check(tmp_path, cases)


@pytest.mark.slow
def test_of_two_runs_of_one_name_one_is_refused(tmp_path):
    find_mpirun()  # skips where MPI is not installed
    command = [sys.executable, "-m", "fedstil_mpi.run", str(TINY), SMALL, f"output={tmp_path}"]
    jobs = [subprocess.Popen([*command, f"seed={seed}"], env=environment(), stderr=subprocess.PIPE) for seed in (1, 2)]
    said = [job.communicate(timeout=600)[1].decode().splitlines() for job in jobs]
    assert sorted(job.returncode for job in jobs) == [0, 2]
    winner = 0 if jobs[0].returncode == 0 else 1
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == LEFT
    assert f"seed: {winner + 1}" in (tmp_path / "tiny" / "config.yaml").read_text().splitlines()
    (line,) = said[1 - winner]
    assert re.search("in use by|holds a run already", line)


@pytest.mark.slow
@pytest.mark.long
def test_sixty_runs_that_are_killed(tmp_path):
    check(tmp_path, list(chains(METHODS, 10, ["kill"], 3)))


@pytest.mark.slow
@pytest.mark.long
def test_runs_whose_disk_is_full_or_whose_folder_is_gone(tmp_path):
    check(tmp_path, list(chains(METHODS[1:4], 8, ["full", "remove", "rename"], 2)))
