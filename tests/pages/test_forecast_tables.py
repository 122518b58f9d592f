"""Many hours on the page for people: pasted or from a file, right and wrong."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE
from bike_pipeline.serving.records import to_columns
from tests.pages.browsing import Tab
from tests.pages.forecasting import (
    CELLS,
    CHOOSE,
    GOOD,
    HEADER,
    PASTE,
    ROW,
    UNKNOWN,
    answers_of,
    as_shown,
    opened,
    pasted,
)
from tests.pages.pictures import DRAWN
from tests.serving.running import Running


@pytest.mark.parametrize("way", [PASTE, CHOOSE], ids=["pasted", "from a file"])
def test_48_hours_are_a_chart_and_a_table_of_what_every_client_gets(browser: str, server: Running, way: str) -> None:
    hours = [(day, hour) for day in (15, 16) for hour in range(24)]
    lines = [f"2012-06-{day},{hour},mist,{10 + hour / 2},60,12.5" for day, hour in hours]

    async def look(page: Tab) -> Any:
        await page.evaluate(way % json.dumps("\n".join([HEADER, *lines])))
        await page.wait(DRAWN)
        corners = "document.querySelector('#chart ' + one).getAttribute('d').split('L').length"
        drawn = f"['path.band', 'path.line'].map(one => {corners})"
        label = "document.querySelector('#chart svg').getAttribute('aria-label')"
        head = "[...document.querySelectorAll('#table-rows th[scope=col]')].map(cell => cell.innerText)"
        return await page.evaluate(f"[{CELLS % '#table-rows'}, {drawn}, {label}, {head}]")

    cells, drawn, label, head = opened(browser, server.rest, look)
    rows = [
        {**ROW, "day": day, "weekday": 5 + day - 15, "workingday": int(day == 15), "hr": hour, "weathersit": 2,
         "temp": (10 + hour / 2 + 8) / 47, "atemp": (10 + hour / 2 + 16) / 66, "hum": 0.6, "windspeed": 12.5 / 67}
        for day, hour in hours
    ]  # fmt: skip
    assert [row[1:] for row in cells] == [as_shown(answer) for answer in answers_of(server, rows)]
    assert (cells[0][0], cells[-1][0]) == ("Fri 15 Jun, 00:00", "Sat 16 Jun, 23:00")
    assert drawn == [2 * 48, 48]
    assert label.startswith("Forecast of 48 hours: least ")
    assert head == ["hour", "rentals an hour", "90 of 100 are between"]


def test_a_table_may_hold_the_columns_of_the_training_data(browser: str, server: Running) -> None:
    with EMBEDDED_FILE.open(encoding="utf-8", newline="") as file:
        records = [row for row in csv.DictReader(file) if row["dteday"] == "2012-03-01"]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(records[0]), delimiter=";")
    writer.writeheader()
    writer.writerows({**row, "temp": row["temp"].replace(".", ",")} for row in records)
    sentence, problems, cells = pasted(browser, server, table.getvalue())
    assert problems == []
    assert sentence.startswith(f"{len(records)} hours, answered by version 1.")
    columns = to_columns(records, "the table")
    rows = [dict(zip(columns, values, strict=True)) | UNKNOWN for values in zip(*columns.values(), strict=True)]
    assert [row[1:] for row in cells] == [as_shown(answer) for answer in answers_of(server, rows)]


WRONG = {
    "2012-06-31,3,clear,25,50,10": 'date: "2012-06-31" is none',
    "2010-06-15,3,clear,25,50,10": "date: 2010-06-15 is not from 2011 on",
    "2012-06-15,24,clear,25,50,10": 'hour: "24" is no full hour from 0 to 23',
    "2012-06-15,3:30,clear,25,50,10": 'hour: "3:30" is no full hour from 0 to 23',
    "2012-06-15,3,sunny,25,50,10": 'weather: "sunny" is none of 1 clear, 2 mist',
    "2012-06-15,3,clear,warm,50,10": 'temperature: "warm" is no number',
    "2012-06-15,3,clear,,50,10": 'temperature: "" is no number',
    "2012-06-15,3,clear,45,50,10": "temperature: 45 °C is not from -8 to 39",
    "2012-06-15,3,clear,25,150,-1": "humidity: 150 % is not from 0 to 100; wind: -1 km/h is not from 0 to 67",
    "2012-06-15,3,clear,25,50": "5 fields, and the header has 6",
    "2012-06-15,17:00,mist,25,50,10": "the same hour as line 2",
}


def test_lines_that_are_wrong_are_named_and_the_others_are_forecast(browser: str, server: Running) -> None:
    last = "2012-06-15T18:00,18,1,25,50,10".replace("T18:00", "")
    sentence, problems, cells = pasted(browser, server, "\n".join([HEADER, GOOD, *WRONG, "", last]))
    assert len(problems) == len(WRONG)
    for number, (problem, expected) in enumerate(zip(problems, WRONG.values(), strict=True), 3):
        assert problem.startswith(f"Line {number}: {expected}")
    assert f"{len(WRONG)} of the lines are left out" in sentence
    assert [row[0] for row in cells] == ["Fri 15 Jun, 17:00", "Fri 15 Jun, 18:00"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("date,hour,weather,temperature\n2012-06-15,3,clear,25", "Line 1: the header does not name humidity, wind."),
        (GOOD, "There is no line below a header."),
        (f"{HEADER}\nyesterday,3,clear,25,50,10", "No line can be forecast"),
        ("\n".join([HEADER, *[GOOD] * 745]), "There are 745 lines, and at most 744"),
    ],
    ids=["header", "no line", "none is right", "too many"],
)
def test_a_table_that_cannot_be_read_says_why(browser: str, server: Running, table: str, said: str) -> None:
    sentence, _, cells = pasted(browser, server, table)
    assert sentence.startswith(said)
    assert cells == []
