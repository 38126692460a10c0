"""Methods, streams and readers that lie outside the package."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from fedstil_mpi.config.sections import Data
from fedstil_mpi.data import readers
from fedstil_mpi.data.__main__ import main as data_command
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.data.streams.synthetic import SyntheticStream
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError
from support import made_sets

FEDAVG = Path(methods.__file__).with_name("fedavg.py")
OWN = """
from dataclasses import dataclass
from fedstil_mpi.methods.fedavg import PRESETS, Client, Server

@dataclass(kw_only=True)
class Options:
    norms: str = "local"
    rate: float = 0.5
"""


@pytest.fixture
def mine(tmp_path) -> Path:
    (tmp_path / "mine.py").write_text(OWN)
    return tmp_path / "mine.py"


def resolve(name: str, **options):
    method = methods.load(name)
    return loading.resolve({"method": {"name": name} | options}, method.Options, method.PRESETS)


def test_a_file_is_a_method(mine):
    assert resolve(str(mine), rate=0.25).method.options.rate == 0.25
    assert methods.load(str(mine)) is methods.load(str(mine))
    with pytest.raises(InputError, match=r"unknown config key method\.rat; did you mean method\.rate\?"):
        resolve(str(mine), rat=1)


def test_two_files_of_one_name_do_not_meet(mine, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "mine.py"
    other.write_text(OWN.replace("0.5", "0.75"))
    assert resolve(str(mine)).method.options.rate == 0.5
    assert resolve(str(other)).method.options.rate == 0.75


def test_a_module_is_a_method(tmp_path, monkeypatch):
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("own_package.own").method.options.rate == 0.5
    for name in ("own_package.owm", "own_package.own.deeper", "no_package.own"):
        with pytest.raises(InputError, match=f"method.name = {name}: there is no such module"):
            methods.check_name(name)


def test_a_saved_path_means_the_same_in_any_folder(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(mine.parent)
    (tmp_path / "config.yaml").write_text("method: {name: mine.py}\n")
    assert loading.read("config.yaml")["method"]["name"] == str(mine)
    assert loading.read("config.yaml", ["method.name=./mine.py"])["method"]["name"] == str(mine)
    assert loading.read("config.yaml", ["method.name=fedavg"])["method"]["name"] == "fedavg"


def test_tables_show_the_last_name():
    assert [plugins.label(name) for name in ("a/mine.py", "a.mine", "fedavg", "timm:vit.in1k")] == [
        *("mine", "mine", "fedavg", "timm:vit.in1k")
    ]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "does not exist; give the path of a Python file"),
        ("class Client:", "is no Python: .*line 1.*; correct the file"),
        (b"\xff\xfe", "is no Python"),
        ("import no_such_thing", "fails on import with ModuleNotFoundError: No module named 'no_such_thing'"),
        ("from .base import Client", "fails on import with ImportError: attempted relative import"),
        ("1 / 0", "fails on import with ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('no')", "fails on import with SystemExit: no"),
        (OWN.replace("Client, ", ""), "lacks Client; expected a module with Options, PRESETS, Client, Server"),
        (OWN + "Client = 3", r"its Client is 3; expected a class derived from fedstil_mpi\.methods\.base\.Client"),
        (OWN + "Options = {}", "its Options is {}; expected a dataclass"),
        (OWN.replace("rate", "preset"), "its Options has preset, which every method has; rename it"),
        (OWN + "PRESETS = ['best']", r"its PRESETS is \['best'\]; expected"),
    ],
)
def test_what_is_no_method_is_refused_in_one_line(code, message, tmp_path):
    if code is not None:
        (tmp_path / "mine.py").write_bytes(code if isinstance(code, bytes) else code.encode())
    with pytest.raises(InputError, match=message) as caught:
        methods.load(str(tmp_path / "mine.py"))
    assert str(caught.value).startswith(f"method.name = {tmp_path / 'mine.py'}")
    assert "\n" not in str(caught.value)


def test_the_check_before_the_placement_runs_nothing(tmp_path):
    shutil.copy(FEDAVG, tmp_path / "mine.py")
    (tmp_path / "package").mkdir()
    for name in ("__init__", "mine"):
        (tmp_path / "package" / f"{name}.py").write_text("raise SystemExit(3)")
    code = (
        "import sys; from fedstil_mpi import methods\n"
        "for name in ('fedavg', 'mine.py', 'package.mine'): methods.check_name(name)\n"
        "assert not {'torch', 'package', 'fedstil_mpi.methods.fedavg'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


# -- streams and readers -----------------------------------------------------------------------------------------------

STREAM = """
from fedstil_mpi.data.streams.synthetic import SyntheticStream

def open_stream(data, seed):
    return SyntheticStream(data.synthetic, seed, tasks=data.tasks, height=data.height, width=data.width)
"""


def stream(folder: Path, code: str) -> Data:
    (folder / "mine.py").write_text(code)
    return loading.resolve({"data": {"kind": str(folder / "mine.py"), "tasks": 2, "clients": [1, 2]}}).data


def test_a_file_gives_a_stream(tmp_path):
    opened = open_stream(stream(tmp_path, STREAM), seed=3)
    assert (opened.clients, opened.tasks) == (2, 2)
    whole = open_stream(Data(tasks=2), seed=3)
    assert isinstance(whole, SyntheticStream)
    assert np.array_equal(opened.task(0, 1).train.pixels, whole.task(1, 1).train.pixels)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("", "lacks open_stream; expected a module with open_stream"),
        (
            "def open_stream(data, seed): return 3",
            r"its open_stream gave 3; expected a fedstil_mpi\.data\.streams\.base\.Stream",
        ),
    ],
)
def test_what_gives_no_stream_is_refused(code, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_stream(stream(tmp_path, code), seed=3)


def test_a_stream_that_imports_torch_comes_too_early(tmp_path):
    (tmp_path / "mine.py").write_text("import torch" + STREAM)
    code = (
        "from fedstil_mpi.config.sections import Data; from fedstil_mpi.data.sources import open_stream\n"
        "open_stream(Data(kind='mine.py'), 1)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "data.kind = mine.py imports torch at its top, before the ranks have their GPUs" in done.stderr


def test_a_word_that_is_neither_kind_nor_file_is_refused():
    with pytest.raises(InputError, match=r"data\.kind = 'pkuu'; did you mean pku\? expected one of"):
        loading.resolve({"data": {"kind": "pkuu"}})
    with pytest.raises(InputError, match=r"memory\.quota = 'mine\.py'; expected one of"):
        loading.resolve({"memory": {"quota": "mine.py"}})


def test_a_file_is_a_reader(tmp_path):
    shutil.copy(readers.folder.__file__, tmp_path / "mine.py")
    root = made_sets.MAKERS["folder"](tmp_path / "images")
    mine = str(tmp_path / "mine.py")
    assert readers.read(mine, root) == readers.read("folder", root)
    pack = str(tmp_path / "x.h5")
    data_command(["build", "--set", f"{mine}={root}", "--out", pack, "--size", "16x8", "--tasks", "1", "--seed", "1"])
    assert Path(pack).is_file()


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("mine.py", "", "lacks LAYOUT, read; expected a module with LAYOUT, read"),
        ("gone.py", "", "--set = .*gone.py does not exist"),
        ("duke.py", "", "is not read: its authors withdrew DukeMTMC"),
    ],
)
def test_what_is_no_reader_is_refused(name, code, message, tmp_path):
    (tmp_path / name.replace("gone", "here")).write_text(code)
    with pytest.raises(InputError, match=message):
        readers.read(str(tmp_path / name), tmp_path)
