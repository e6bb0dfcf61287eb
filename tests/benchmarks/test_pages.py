"""The committed pages are what the committed results make, and the README's figures are theirs."""

import pathlib
import re

import pytest

from benchmarks import (
    calibrated,
    cifar100,
    devices,
    edgetpu,
    exactness,
    export_time,
    families,
    fine_tuning,
    kernels,
    latency,
    portability,
    results,
    supported,
    temperature,
    training_step,
)
from benchmarks.papers import cost
from benchmarks.papers import page as papers_page
from benchmarks.papers.rows import Place
from benchmarks.papers.tables import TABLES

README = pathlib.Path("README.md")
DOCS = pathlib.Path("docs")


@pytest.mark.parametrize(
    "benchmark", [calibrated, cifar100, exactness, families, fine_tuning, kernels, portability, temperature]
)
def test_a_page_is_made_of_all_its_results(benchmark):
    assert benchmark.RESULTS.with_suffix(".md").read_text() == benchmark.table()


@pytest.mark.parametrize("benchmark", [cost, devices, edgetpu, export_time, latency, training_step])
def test_a_page_is_made_of_its_result(benchmark):
    found = results.read(benchmark.RESULTS.with_suffix(".json"))
    assert benchmark.RESULTS.with_suffix(".md").read_text() == benchmark.table(found)


@pytest.mark.parametrize("name", TABLES)
def test_a_papers_page_is_made_of_all_its_results(name):
    place = Place(results.FOLDER / "papers" / name, pathlib.Path(), TABLES[name].epochs)
    assert pathlib.Path(f"{place.results}.md").read_text() == papers_page.text(TABLES[name], place)


def test_the_page_of_what_is_taken_is_made_of_the_tables():
    assert supported.PATH.read_text() == supported.page()


@pytest.mark.parametrize("page", [README, *sorted(DOCS.glob("*.md"))], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_what_was_measured_is_in_a_page_of_results():
    figures = [
        figure
        for page in (README, *DOCS.glob("*.md"))
        for figure in re.findall(r"\b\d+\.\d\d %|\b0 of [\d,]+\b", page.read_text())
    ]
    assert len(figures) > 50
    pages = "".join(page.read_text().replace(" %", "%") for page in results.FOLDER.rglob("*.md"))
    missing = [figure for figure in figures if figure.replace(" %", "%") not in pages]
    assert not missing, f"{README} or {DOCS} has figures that no page of {results.FOLDER} has"
