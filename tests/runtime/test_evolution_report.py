"""The page is read as a browser would: with a parser, its pictures decoded."""

import base64
import html
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from jaxrl_engine.runtime.evolution import EvolutionRecord
from jaxrl_engine.runtime.evolution_report import best_by_links, write_report

ROWS = [{"env_steps": 100, "Charts/Success": 0.5}, {"env_steps": 200, "Charts/Success": 0.875}]


def make_record(**changes) -> EvolutionRecord:
    """Six cells: one is empty, one is out of reach."""
    whole = {
        "title": "arms <b>bold</b> & \"co\"", "axes": ("length", "area"), "shape": (2, 3), "low": np.zeros(2),
        "high": np.ones(2), "centroids": np.zeros((6, 2)), "feasible": np.arange(6) > 0, "feasible_is_estimate": True,
        "fitness": np.array([-np.inf, -np.inf, 0.5, 0.75, 0.25, 0.125]),
        "archived": np.array([0.0, 0.0, 1.25, 1.0, 0.25, 0.0]),
        "policy_version": np.zeros(6, int), "born": np.arange(6) + 1000, "evaluations": np.ones(6, int),
        "lengths": np.full((6, 5), 0.125), "counts": np.array([2, 2, 3, 3, 2, 5]), "thickness": np.ones(6),
        "gear": np.ones(6), "descriptors": np.zeros((6, 2)), "successes": np.array([0, 0, 3, 7, 2, 0]),
        "trials": np.array([0, 0, 8, 8, 8, 8]), "history_fitness": np.zeros((0, 6)),
        "history_generation": np.zeros(0, int), "env_steps": 1_234_567, "evaluation_steps": 89_000, "generations": 421,
        "offset": -1.0,
    }  # fmt: skip
    return EvolutionRecord(**(whole | changes))


class Page(HTMLParser):
    """Text, tags and pictures of a page; complains about tags that are not closed in their order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags, self.pictures, self.rows, self.open = "", [], [], [], []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])
        if tag == "tr":
            self.rows.append([])
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data
            if self.rows and self.open[-1] in ("td", "th"):
                self.rows[-1].append(data)


@pytest.fixture
def run_dir(tmp_path):
    """Pictures as a run leaves them in its repertoire's directory; the film is missing."""
    directory = tmp_path / "a run" / "repertoire"
    directory.mkdir(parents=True)
    for name, size in (("heatmap.png", (31, 17)), ("curves.png", (13, 11))):
        Image.new("RGB", size).save(directory / name)
    return directory


def read(record, directory, rows=ROWS, summary=None) -> tuple[Page, str]:
    path = write_report(record, rows, directory, {} if summary is None else summary)
    assert path == directory / "report.html"
    source = path.read_text(encoding="utf-8")
    return Page(source), source


def test_the_numbers_are_there(run_dir):
    page, _ = read(make_record(), run_dir)
    assert "80.0 %" in page.text  # four elites in five feasible cells
    assert "4 of 5 feasible cells" in page.text
    assert "5.62" in page.text  # 0.5 + 0.75 + 0.25 + 0.125, each plus 1: exactly 5.625
    assert "6.50" in page.text
    assert "+0.88" in page.text
    assert "37.5 %" in page.text  # 12 of 32
    assert "95 % interval 22.9 to 54.7 %" in page.text  # Wilson's by scipy: 0.22929, 0.54750
    assert "4 elites on 8 fresh targets" in page.text
    assert "421 generations" in page.text
    assert "1,234,567 environment steps" in page.text
    assert "success while training at the end 87.5 %" in page.text
    assert "which these are is an estimate" in page.text


def test_the_best_of_every_number_of_links_has_a_row(run_dir):
    assert best_by_links(make_record()) == [4, 3, 5]
    page, _ = read(make_record(), run_dir)
    best = [row for row in page.rows if len(row) == 10][1:]
    assert [row[0] for row in best] == ["2", "3", "5"]
    assert best[1][:9] == ["3", "0.375", "0.750", "1.000", "87.5 %", "52.9 to 97.8 %", "8", "1,003", "3"]
    assert best[1][9] == "0.125 0.125 0.125"


def test_the_page_needs_nothing_but_itself(run_dir):
    page, source = read(make_record(), run_dir)
    assert "<script" not in source
    assert "http" not in source
    assert {"script", "link", "iframe", "object"} & set(page.tags) == set()
    assert "url(" not in source
    assert "@import" not in source
    sizes = []
    for picture in page.pictures:
        kind, data = picture.split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
            image.load()
            sizes.append(image.size)
    assert sizes == [(31, 17), (13, 11)]


def test_a_film_is_embedded_as_what_it_is(run_dir):
    Image.new("P", (7, 5)).save(run_dir / "evolution.gif")
    page, _ = read(make_record(), run_dir)
    assert [picture.split(";")[0] for picture in page.pictures] == [
        "data:image/png", "data:image/gif", "data:image/png"
    ]  # fmt: skip


def test_it_is_readable_in_the_dark_and_on_a_phone(run_dir):
    _, source = read(make_record(), run_dir)
    assert "prefers-color-scheme: dark" in source
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in source


def test_all_text_is_text(run_dir):
    summary = {"name": "<script>alert(1)</script>", "<i>": {"k&": [1, None, "<u>"]}}
    page, source = read(make_record(), run_dir, summary=summary)
    assert {"b", "i", "u", "script"} & set(page.tags) == {"b"}  # the page's own, in its cards
    assert "<b>bold" not in source
    assert 'arms <b>bold</b> & "co"' in page.text
    assert ["name", "<script>alert(1)</script>"] in page.rows
    assert ["<i>.k&", '[1, null, "<u>"]'] in page.rows


def test_commands_name_the_run_and_the_best_elite(run_dir):
    page, source = read(make_record(), run_dir)
    assert f"python -m jaxrl_engine.run --resume '{run_dir.parent}'" in page.text
    assert f"python -m jaxrl_engine.play '{run_dir.parent}' --elite 3" in page.text
    assert html.escape(f"'{run_dir.parent}'") in source


def test_an_empty_repertoire_is_said_to_be_empty(run_dir):
    record = make_record(fitness=np.full(6, -np.inf))
    page, _ = read(record, run_dir, rows=[])
    assert "The repertoire is empty" in page.text
    assert "0.0 %" in page.text
    assert "no elite was tried" in page.text
    assert "--elite" not in page.text
    assert "nan" not in page.text
    assert "success while training" not in page.text


def test_without_pictures_there_is_still_a_page(tmp_path):
    page, _ = read(make_record(trials=np.zeros(6, int), successes=np.zeros(6, int)), tmp_path, rows=[{}])
    assert page.pictures == []
    assert "no elite was tried on fresh targets" in page.text
