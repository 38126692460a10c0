"""Mutated configs and overrides: each is an experiment that can be planned, or is refused in one line; nothing hangs or grows."""

import json
import random
import resource
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from fedstil_mpi.config.files import leaves
from fedstil_mpi.data.sources import open_original
from fedstil_mpi.data.streams.dense import dense
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.util.errors import InputError
from support import TINY
from support.mutations import mutated

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SECONDS = 20
MEMORY = 4 << 30
"""Bytes, beside what the tests themselves hold."""
VALUES = [
    *(
        "",
        "null",
        "~",
        "???",
        "true",
        "[]",
        "{}",
        "{a: 1}",
        "[{a: 1}]",
        "[[1]]",
        "[[0, 1, 2]]",
        "[a, b]",
        "'",
        "[",
        "*a",
        "&a b",
    ),
    *(
        "-1",
        "0",
        "1",
        "2",
        "1.5",
        "-0.0",
        "1e-320",
        "1e309",
        "-1e309",
        "nan",
        ".inf",
        "2147483648",
        "-2147483649",
        "9" * 20,
    ),
    *(
        "9" * 400,
        "9" * 5000,
        "0x10",
        "1_000",
        "0b11",
        "1e1000000",
        "12:30:45",
        "2024-13-45",
        "!!binary aGVsbG8=",
        "!mine x",
    ),
    *(
        "${seed}",
        "${${seed}}",
        "${",
        "${output}${output}",
        "${oc.env:HOME}",
        "${oc.env:NOWHERE}",
        "${nowhere.at.all}",
        "\\0",
    ),
    *(
        "\0",
        "\x1b[2J",
        "[red]",
        "a\u202eb",
        "e\u0301",
        "\ud800",
        "x" * 300,
        "x" * 10**5,
        "a/" * 3000,
        "..",
        "../..",
        "/",
        ".",
    ),
    *(
        "/dev/zero",
        "/dev/null",
        "~/x",
        "~nobody/x",
        "no.module",
        "..py",
        "no/file.py",
        "/dev/zero.py",
        "a.b.",
        "timm:",
        "timm:x",
    ),
    *("!!python/object/apply:os.system [false]", "{" * 200, "[" * 3000, "a: b: c", "- x", "#", "\n", "\t", "=", "a=b"),
]
KEYS = [
    "",
    "=",
    ".",
    "train",
    "train.",
    ".lr",
    "train..lr",
    "method.options",
    "method.overridden",
    "extends",
    "[0]",
    "a[0]",
    "${seed}",
]


def planned(config: Path, overrides: list[str]) -> None:
    """As `plan` does before it counts."""
    source = loading.read(config, overrides)
    draft = loading.resolve(json.loads(json.dumps(source)))
    method = methods.load(draft.method.name)
    experiment = loading.resolve(source, method.Options, method.PRESETS)
    make_plan(experiment, method, dense(open_original(experiment.data, experiment.seed)))


def known_keys() -> list[str]:
    """All keys of all methods' configs."""
    keys: dict[str, None] = {}
    for name in methods.names():
        method = methods.load(name)
        experiment = loading.resolve({"method": {"name": name}}, method.Options, method.PRESETS)
        keys |= dict.fromkeys(key for key, _ in leaves(json.loads(experiment.as_json())))
    return list(keys)


def override(keys: list[str], draw: random.Random) -> str:
    key = draw.choice(keys) if draw.random() < 0.9 else draw.choice(KEYS)
    text = f"{key}={draw.choice(VALUES)}"
    if draw.random() < 0.2:
        text = mutated(text.encode(errors="surrogatepass"), draw).decode(errors="surrogateescape")
    return text


def outcome(config: Path, overrides: list[str]) -> str:
    """What comes of it: planned, refused, or what should not."""
    signal.alarm(SECONDS)
    try:
        planned(config, overrides)
    except InputError as refused:
        return "refused" if str(refused).isprintable() else f"in several lines: {refused}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    finally:
        signal.alarm(0)
    return "planned"


def outcomes(cases: list[tuple[Path, list[str]]]) -> list[str]:
    """Of all cases, one after the other, in a process of limited memory."""

    def too_long(number, frame):
        raise TimeoutError(f"not done after {SECONDS} s")

    def work() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
        signal.signal(signal.SIGALRM, too_long)
        sender.send([outcome(*case) for case in cases])

    methods.load("fedstil")  # torch, once
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return [f"the process ended with {process.exitcode}"]
    finally:
        process.join()


def check(cases: list[tuple[Path, list[str]]]) -> None:
    found = outcomes(cases)
    wrong = {
        str(case): result for case, result in zip(cases, found, strict=False) if result not in ("planned", "refused")
    }
    assert not wrong, "\n".join(f"{case[:300]}\n    {result}" for case, result in wrong.items())
    assert len(found) == len(cases)
    assert found.count("refused") > len(cases) / 4


@pytest.mark.parametrize("trials", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_mutated_overrides(trials):
    draw, keys = random.Random(3), known_keys()
    check([(TINY, [override(keys, draw) for _ in range(draw.choice([1, 1, 1, 2]))]) for _ in range(trials)])


@pytest.mark.parametrize("trials", [30, pytest.param(500, marks=pytest.mark.long)])
def test_mutated_files(tmp_path, trials):
    draw, cases = random.Random(1), []
    for number in range(trials):
        path = tmp_path / f"{number}.yaml"
        path.write_bytes(mutated(draw.choice(CONFIGS).read_bytes(), draw))
        cases.append((path, []))
    check(cases)


def test_a_config_whose_aliases_multiply_is_refused_before_it_grows(tmp_path, little_memory):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    assert outcome(path, []) == "refused"


def test_a_config_that_is_nested_too_deeply_is_refused(tmp_path, little_memory):
    path = tmp_path / "deep.yaml"
    path.write_text("data: " + "[" * 3_000)
    assert outcome(path, []) == "refused"
