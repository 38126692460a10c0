"""Methods that lie outside the package."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedstil_mpi import methods
from fedstil_mpi.config import loading
from fedstil_mpi.util import plugins
from fedstil_mpi.util.errors import InputError

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
        (None, "there is no such file; give the path of a Python file"),
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
