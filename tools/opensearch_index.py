"""Write the index template of the request log and the dashboard's searches from the feature contract.

`configs/monitoring/opensearch/*.json` are this program's output; a test runs it again and compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bike_pipeline import features

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "monitoring" / "opensearch"
INDEX = "bike-requests"
KEYWORD = {"type": "keyword", "ignore_above": 256}
# A text is no number, and 8.5 no whole one.
WHOLE, NUMBER = ({"type": kind, "coerce": False} for kind in ("long", "float"))


def _fields(**fields: Any) -> dict[str, Any]:
    return {"dynamic": "strict", "properties": fields}


def template() -> dict[str, Any]:
    """Return the index template: every field of a line by name, and nothing else."""
    inputs = {f.name: WHOLE if f.kind == "int" else NUMBER for f in features.MODEL_INPUTS}
    interval = _fields(lower=NUMBER, upper=NUMBER)
    about = {
        "schema": WHOLE,
        "sampling_rate": NUMBER,
        "model": KEYWORD,
        "version": WHOLE,
        "signature": KEYWORD,
        "backend": KEYWORD,
        "row": WHOLE,
    }
    fields = {
        "@timestamp": {"type": "date", "format": "strict_date_optional_time"},
        "ecs": _fields(version=KEYWORD),
        "event": _fields(dataset=KEYWORD, kind=KEYWORD, outcome=KEYWORD, id=KEYWORD, duration=WHOLE),
        "http": _fields(request=_fields(id=KEYWORD)),
        "network": _fields(protocol=KEYWORD),
        "service": _fields(name=KEYWORD, version=KEYWORD),
        "error": _fields(code=KEYWORD),
        "bike": _fields(**about, features=_fields(**inputs), answer=NUMBER, interval=interval),
    }
    settings = {"number_of_shards": 1, "number_of_replicas": 1}
    mappings = {"date_detection": False, **_fields(**fields)}
    return {
        "index_patterns": [f"{INDEX}-*"],
        "priority": 200,
        "template": {"settings": settings, "mappings": mappings},
        "_meta": {"description": "Lines of bike_pipeline's request log (ECS). Written by tools/opensearch_index.py."},
    }


def searches() -> dict[str, Any]:
    """Return what a dashboard asks, by name: each the body of a `_search`, of the last day."""
    recent = {"range": {"@timestamp": {"gte": "now-24h"}}}
    # A request is told once a row; its first one stands for it.
    requests = {"bool": {"filter": [recent, {"term": {"bike.row": 0}}]}}
    answered = {"bool": {"filter": [recent, {"exists": {"field": "bike.answer"}}]}}
    out_of_range = {f.name: _out_of_range(f) for f in features.MODEL_INPUTS}
    every = list(out_of_range.values())
    return {
        "requests_by_version": _search(
            requests,
            versions={"terms": {"field": "bike.version"}, "aggs": {"codes": {"terms": {"field": "error.code"}}}},
        ),
        "requests_that_failed": _search(requests, codes={"terms": {"field": "error.code"}}),
        "latency_nanoseconds": _search(
            requests, duration={"percentiles": {"field": "event.duration", "percents": [50, 95, 99]}}
        ),
        "answers_by_hour": _search(
            answered,
            hours={
                "terms": {"field": "bike.features.hr", "size": 24, "order": {"_key": "asc"}},
                "aggs": {"rentals": {"stats": {"field": "bike.answer"}}},
            },
        ),
        "rows_out_of_range": _search(
            {"bool": {"filter": [recent], "should": every, "minimum_should_match": 1}},
            by_feature={"filters": {"filters": out_of_range}},
        ),
    }


def _out_of_range(feature: features.Feature) -> dict[str, Any]:
    field = f"bike.features.{feature.name}"
    # Nothing above 0 stands for a value that was not sent, where one need not be.
    least = {"gt": 0} if feature.default is not None else {}
    bounds = [{"lt": feature.minimum, **least}] if feature.minimum is not None else []
    bounds += [{"gt": feature.maximum}] if feature.maximum is not None else []
    return {"bool": {"should": [{"range": {field: bound}} for bound in bounds], "minimum_should_match": 1}}


def _search(query: dict[str, Any], **aggregations: Any) -> dict[str, Any]:
    return {"size": 0, "track_total_hits": True, "query": query, "aggs": aggregations}


def main(folder: Path = FOLDER) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("index-template.json", template()), ("searches.json", searches())):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
