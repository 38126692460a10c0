"""What a plan says of CPU time: passes by rank, times what a pass costs this host."""

from fedstil_mpi import methods
from fedstil_mpi.client.learner import KINDS
from fedstil_mpi.config import loading
from fedstil_mpi.data.sources import open_stream
from fedstil_mpi.federation.plan import make_plan
from fedstil_mpi.planning import pace, plan_tables
from support import TINY
from support.forecasts import make


def test_an_image_costs_something_and_training_costs_more_than_search():
    source = loading.read(TINY, [])
    method = methods.load(loading.resolve(source).method.name)
    experiment = loading.resolve(source, method.Options, method.PRESETS)
    seconds = pace.measure(make_plan(experiment, method, open_stream(experiment.data, experiment.seed)))
    assert tuple(seconds) == KINDS
    assert min(seconds.values()) > 0
    assert seconds["train"] > seconds["search"]


def test_seconds_are_passes_times_pace():
    forecast = make(ranks=2)
    table = plan_tables.seconds_table(forecast, {"stem": 1.0, "train": 100.0, "search": 0.0})
    _, *columns, sums = ([*column.cells] for column in table.columns)
    counts = forecast.forward_counts
    assert [column[1] for column in columns] == [f"{counts['stem']:.1f}", f"{100 * counts['train']:.1f}", "0.0"]
    total = f"{counts['stem'] + 100 * counts['train']:.1f}"
    assert sums == ["0.0", total, total]
