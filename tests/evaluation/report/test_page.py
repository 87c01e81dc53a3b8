"""The page of a report: whole in one file, and safe whatever a stranger's samples are called."""

import base64
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from jepa_lightning.evaluation.report.page import html_page
from jepa_lightning.evaluation.report.results import Plot, Plots
from jepa_lightning.evaluation.report.write import NO_PLOTS, write_report

VOID = {"meta", "img", "br"}
METRICS = "step,train/loss,collapse/effective_rank\n10,0.9,\n20,0.5,7.5\n"


class Page(HTMLParser):
    """Elements with their attributes, text, and whether all that is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    (tmp_path / "metrics.csv").write_text(METRICS)
    path = write_report(report, tmp_path / "out", runs={"trained": tmp_path / "metrics.csv"})
    assert path == tmp_path / "out" / "report.html"
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json", "report.md"]
    return path.read_text()


@pytest.mark.long
def test_it_needs_nothing_else_and_runs_nothing(written):
    page = Page(written)
    assert not page.all("script")
    assert {tag for tag, _ in page.elements} <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "ul", "li", "div", "table"),
        *(
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "figure",
            "figcaption",
            "img",
            "svg",
            "g",
            "circle",
            "text",
            "span",
            "br",
        ),
        *("details", "summary", "pre"),
    }
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "srcset")], (
            tag,
            attributes,
        )
        if "src" in attributes:
            assert re.match(r"data:image/(png|svg\+xml);base64,[A-Za-z0-9+/=]+$", attributes["src"])
    assert "url(" not in written
    assert "@import" not in written
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_names_are_shown_as_they_are(written, report):
    page = Page(written)
    for part in ("<script>alert('1')</script>", 'onerror="alert(2)"', "\\x1b[31m\\n\\u202e"):
        assert part in page.text
    assert "\x1b" not in written
    assert "\u202e" not in written


def test_every_score_is_there(written, report):
    text = Page(written).text
    for score in report.scores:
        assert str(score.estimate) in text
    assert report.differences[0].words in text
    assert "3.2" in text
    assert "0.987" in text


def test_the_plots_are_drawings_in_which_names_are_text(written):
    page = Page(written)
    drawings = [a for a in page.all("img") if a["src"].startswith("data:image/svg")]
    # Two labels: scores; few labels of three probes; two confusions; four embeddings. And the spectra and a run.
    assert len(drawings) == 2 + 3 + 2 + 4 + 1 + 1
    for drawing in drawings:
        svg = base64.b64decode(drawing["src"].split(",")[1]).decode()
        tags = {part.tag.rpartition("}")[2] for part in ElementTree.fromstring(svg).iter()}
        assert not tags & {"script", "foreignObject", "a"}
        assert not re.search(r'(?:href|src)="https?:', svg)
    assert len([a for a in page.all("img") if a["src"].startswith("data:image/png")]) == 2 * (1 + 2 * 2)


def test_a_point_of_an_embedding_has_the_name_and_the_label_of_its_sample(report):
    plot = Plot("map", "<svg/>", (200.0, 100.0), [(20.0, 30.0, 7), (150.0, 40.0, 6)])
    page = html_page(report, Plots({"kind": [[plot]], report.tasks[1].name: [[plot]]}))
    circles, texts = Page(page).all("circle"), Page(page).all("text")
    assert [(circle["cx"], circle["cy"]) for circle in circles] == [("20.0", "30.0"), ("150.0", "40.0")] * 2
    assert [text.get("class") for text in texts] == [None, "l"] * 2  # to the side where there is room
    words = re.findall(r"<text[^>]*>([^<]*)</text>", page)
    assert words[0].endswith("7.png: _b")
    assert words[2].endswith("7.png: 0.75")
    assert all(len(word) < 400 for word in words)


def test_without_matplotlib_a_line_says_what_is_missing(report, tmp_path, monkeypatch):
    for name in ("plots", "theme"):
        monkeypatch.delitem(sys.modules, f"jepa_lightning.evaluation.report.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = write_report(report, tmp_path).read_text()
    page = Page(text)
    assert page.text.count(NO_PLOTS) == 1
    assert not [a for a in page.all("img") if a["src"].startswith("data:image/svg")]
    assert all(str(score.estimate) in page.text for score in report.scores)
    assert (tmp_path / "report.md").read_text().count("pip install matplotlib") == 1
    assert (tmp_path / "report.json").read_text().count(NO_PLOTS) == 1


@pytest.mark.long
def test_the_same_report_is_the_same_page(report, plots, written):
    alone = html_page(report, plots)
    assert written.startswith(alone[: alone.index("<h2>Settings")])


def test_mistakes_are_told(report, tmp_path):
    (tmp_path / "metrics.csv").write_text("step,val/other\n1,2\n")
    with pytest.raises(ValueError, match=r"one of the columns train/loss.*got step, val/other"):
        write_report(report, tmp_path / "r", runs={"trained": tmp_path / "metrics.csv"})
    with pytest.raises(ValueError, match=r"found no .*none.csv"):
        write_report(report, tmp_path / "r", runs={"trained": tmp_path / "none.csv"})
    with pytest.raises(ValueError, match=r"got .'other'."):
        write_report(report, tmp_path / "r", runs={"other": tmp_path / "metrics.csv"})
    assert not (tmp_path / "r").exists()
