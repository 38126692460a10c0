"""report.html: one file that shows nothing but the report, opened and operated as a person would."""

import time
from html.parser import HTMLParser

import pytest

from fedstil_mpi import report
from fedstil_mpi.results.report.html import figures, page
from support import made_runs
from support.browser import chromium
from support.made_runs import FIRST, SKEWED, UNIFORM

if page.missing():
    pytest.skip(f"{page.missing()} not installed: pip install 'fedstil-mpi[html]'", allow_module_level=True)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """The report on the three, in a browser."""
    folder = made_runs.write_three(tmp_path_factory.mktemp("three"))
    report.write(report.load([folder]), folder / "report")
    with chromium() as browser:
        browser.set_window_size(1400, 900)
        browser.get((folder / "report" / "report.html").as_uri())
        yield browser


def column(browser, section, index):
    """The texts of a column of the first table under a heading."""
    script = """
    const section = [...document.querySelectorAll("section")].find((s) => s.querySelector("h1, h2").textContent === arguments[0]);
    return [...section.querySelectorAll("tbody tr")].map((row) => row.cells[arguments[1]].textContent)
    """
    return browser.execute_script(script, section, index)


def click_head(browser, section, title):
    script = """
    const section = [...document.querySelectorAll("section")].find((s) => s.querySelector("h1, h2").textContent === arguments[0]);
    return [...section.querySelectorAll("th")].find((head) => head.textContent === arguments[1])
    """
    browser.execute_script(script, section, title).click()


def shown(browser):
    """Name of each plot -> the variants whose traces are visible."""
    script = """
    return Object.fromEntries(data.figures.map(({ name }) => [name, document.getElementById(`plot-${name}`).data
      .filter((trace) => trace.visible !== false).map((trace) => trace.meta)]))
    """
    return {name: set(variants) for name, variants in browser.execute_script(script).items()}


def test_it_opens_without_a_complaint_and_loads_nothing(opened):
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert opened.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= 2 * 8


def test_tables_sort_by_the_column_that_is_clicked(opened):
    click_head(opened, "Results", "total (MB)")
    assert column(opened, "Results", 0) == ["single", "fedstil", "fedavg"]
    click_head(opened, "Results", "total (MB)")
    assert column(opened, "Results", 0) == ["fedavg", "fedstil", "single"]
    click_head(opened, "Results", "variant")
    assert column(opened, "Results", 0) == ["fedavg", "fedstil", "single"]


def test_what_has_no_number_comes_last_whichever_way_a_table_is_sorted(opened):
    for _ in range(2):
        click_head(opened, "Savings", "saving without")
        assert column(opened, "Savings", 4) == ["60.0 %", "–"]


def test_variants_are_switched_on_and_off_in_all_plots(opened):
    everyone = {"fedavg", "fedstil", "single"}
    assert set(map(frozenset, shown(opened).values())) <= {frozenset(everyone), frozenset(everyone - {"single"})}
    box = opened.find_element("css selector", "#variants input[value=fedavg]")
    box.click()
    assert all("fedavg" not in of for of in shown(opened).values())
    assert all("fedstil" in of for of in shown(opened).values())
    opened.find_element("css selector", "button[data-show=none]").click()
    assert set(map(frozenset, shown(opened).values())) == {frozenset({"fedstil"})}
    opened.find_element("css selector", "button[data-show=all]").click()
    assert box.is_selected()
    assert shown(opened)["bytes"] == everyone


def test_the_reference_stands_out(opened):
    script = "return document.getElementById('plot-accuracy').data.map((t) => [t.meta, t.line.width, t.opacity])"
    widths, opacities = ({row[0]: row[i] for row in opened.execute_script(script)} for i in (1, 2))
    assert all(widths["fedstil"] > widths[other] for other in ("fedavg", "single"))
    assert all(opacities["fedstil"] > opacities[other] for other in ("fedavg", "single"))
    weight = "return getComputedStyle(document.querySelector('#variants .reference')).fontWeight"
    assert opened.execute_script(weight) == "700"


def test_the_slider_goes_through_the_rounds(opened):
    slider = opened.find_element("css selector", "#relevance input")
    z = "return document.getElementById('plot-relevance').data[0].z"
    assert opened.execute_script(z) == UNIFORM.tolist()
    slider.send_keys("\ue014")  # the right arrow
    assert opened.find_element("css selector", "#relevance output").text == "3"
    assert opened.execute_script(z) == SKEWED.tolist()


def test_a_narrow_window_scrolls_tables_and_not_the_page(opened):
    opened.set_window_size(500, 900)
    fits = "return innerWidth < 600 && document.documentElement.scrollWidth <= innerWidth"
    end = time.monotonic() + 20  # plots follow the window a moment later
    while not (narrow := opened.execute_script(fits)) and time.monotonic() < end:
        time.sleep(0.1)
    assert narrow
    opened.set_window_size(1400, 900)


@pytest.mark.parametrize("width", [500, 1400])
def test_buttons_of_a_plot_lie_beside_what_is_drawn(opened, width):
    """The window is 500 pixels wide at least; a frame in it is narrower."""
    script = """
    const box = (found) => found.getBoundingClientRect().toJSON();
    return [...document.querySelectorAll(".plot")].map((plot) =>
      [box(plot.querySelector(".modebar")), [...plot.querySelectorAll(".colorbar, .plot > .bglayer, .gridlayer")].map(box)])
    """
    opened.set_window_size(width, 900)
    opened.execute_script("for (const plot of document.querySelectorAll('.plot')) Plotly.Plots.resize(plot)")
    for buttons, drawn in opened.execute_script(script):
        assert drawn
        assert all(box["top"] >= buttons["bottom"] or box["right"] <= buttons["left"] for box in drawn)
    opened.set_window_size(1400, 900)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_labels_are_shown_as_they_are_and_nothing_comes_from_elsewhere(tmp_path):
    label = "<script>alert(1)</script> & [x](javascript:alert(2)) </title>"
    made_runs.write(tmp_path / "a", FIRST, label=label)
    made_runs.write(tmp_path / "b", FIRST, label="b", memory={"size": 3})
    folder = report.write(report.load([tmp_path]), tmp_path / "report").parent
    tags = Tags()
    text = (folder / "report.html").read_text()
    tags.feed(text)
    scripts = [attrs for tag, attrs in tags.found if tag == "script"]
    assert len(scripts) == 3
    assert not [attrs for _, attrs in tags.found if "src" in attrs]
    assert {attrs["href"] for tag, attrs in tags.found if tag == "a"} == {"by_seed.csv"}
    assert "&lt;script&gt;alert(1)" in text


def test_without_its_packages_it_is_left_out(tmp_path, monkeypatch, capsys):
    made_runs.write(tmp_path / "a", FIRST)
    found = report.load([tmp_path])
    report.write(found, tmp_path / "report")
    monkeypatch.setattr(page, "NEEDED", ("not_there",))
    report.show(found, report.write(found, tmp_path / "report"))
    assert not (tmp_path / "report" / "report.html").exists()  # the first one would be stale
    assert "pip install 'fedstil-mpi[html]'" in capsys.readouterr().err


def test_many_large_matrices_leave_out_rounds_but_never_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "MOST_WEIGHTS", 8)
    made_runs.write(tmp_path / "a", FIRST, relevances=dict.fromkeys(range(2, 7), UNIFORM))
    found = figures.relevances(report.load([tmp_path]).variants)
    assert found["fedstil"]["rounds"] == [3, 6]
