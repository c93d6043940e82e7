"""The evaluation's page in a real browser: it filters, opens queries, and stays fast with 5,000."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speceyes.evaluation import eval_page
from speceyes.evaluation.analysis import figures
from speceyes.evaluation.eval_page import page
from speceyes.evaluation.runs import TEST, Run
from support.eval_models import run_in

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_in(tmp_path_factory.mktemp("eval") / "run", n=24, names=("min",))


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    loaded: dict[str, Any] = json.loads(found[1])
    return loaded


def grown(run: Run, n: int, question: str) -> Run:
    """The run with its test queries repeated under other names until there are n."""
    base = [r for r in run.records if r.phase == TEST]
    ids = {r.result.query_id for r in base}
    copies = []
    for number in range(n // len(ids) + 1):
        for record in base:
            name = f"{record.result.query_id}-{number}"
            result = dataclasses.replace(record.result, query_id=name)
            copies.append(dataclasses.replace(record, question=question, result=result))
    return dataclasses.replace(run, records=(*run.records, *copies))


def test_the_page_needs_nothing_else_and_carries_every_query(run: Run) -> None:
    text = page([(run, figures(run))])
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    data = data_of(text)
    asked = {r.result.query_id for r in run.of(TEST, "agent")}
    assert {q["id"] for q in data["queries"]} == asked
    assert all(q["pictures"] for q in data["queries"])
    assert any(q["crops"] for q in data["queries"])


def test_what_models_say_cannot_become_part_of_the_page(run: Run) -> None:
    evil = "</script><script>alert(1)</script><!-- "
    changed = grown(run, 30, evil)
    text = page([(changed, figures(run))])
    assert "<script>alert" not in text
    assert any(q["question"] == evil for q in data_of(text)["queries"])


def test_pictures_are_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [q for q in data_of(page([(run, figures(run))]))["queries"]]
    size = sum(len(p) for p in whole[0]["pictures"]) + sum(len(c[0]) for c in whole[0]["crops"])
    monkeypatch.setattr(eval_page, "MOST_PICTURES", 3 * size)
    queries = data_of(page([(run, figures(run))]))["queries"]
    assert 1 <= sum("pictures" in q for q in queries) < len(queries)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser: Any, path: Path) -> tuple[Any, list[str]]:
    said: list[str] = []
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.as_uri())
    return tab, said


def test_a_reader_filters_and_opens_a_query(browser: Any, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page([(run, figures(run))]), encoding="utf-8")
    tab, said = opened(browser, path)
    n = len(run.of(TEST, "agent"))
    assert tab.locator("#count").inner_text() == f"{n} of {n}"
    wrong = sum(not r.correct for r in run.of(TEST, "draft"))
    tab.select_option("#arm", "draft")
    tab.select_option("#grade", "0")
    assert tab.locator("#count").inner_text() == f"{wrong} of {n}"
    tab.locator("#list .row").first.click()
    assert tab.locator("#one tr").count() == 4  # a heading and three arms
    assert tab.locator("#one .views img").count() >= 2  # the scene and the agent's crop
    assert tab.locator("#one .views i").count() >= 1
    widths = tab.eval_on_selector_all("#one img", "all => all.map(i => i.naturalWidth)")
    assert all(width > 0 for width in widths)
    tab.select_option("#grade", "")
    tab.fill("#find", "nothing like this")
    tab.locator("#count", has_text=f"0 of {n}").wait_for()
    assert said == []
    tab.close()


def test_five_thousand_queries_open_and_draw_only_those_in_sight(
    browser: Any, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(page([(grown(run, 5000, "What colour?"), figures(run))]), encoding="utf-8")
    tab, said = opened(browser, path)
    tab.wait_for_selector("#list .row")
    assert int(tab.locator("#count").inner_text().split()[-1]) > 5000
    assert tab.locator("#list .row").count() < 40
    tab.evaluate("document.getElementById('list').scrollTop = 54 * 4000")
    tab.wait_for_timeout(200)
    assert tab.evaluate("document.querySelector('#list .row').offsetTop") > 54 * 3900
    assert tab.locator("#list .row").count() < 40
    assert said == []
    tab.close()
