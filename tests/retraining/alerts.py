"""Messages as Alertmanager sends them to the receiver of concept drift."""

LABELS = {"alertname": "ConceptDrift", "trigger": "concept-drift", "severity": "ticket", "detector": "cusum",
          "kind": "concept drift", "subject": "answers", "job": "bike-monitor"}  # fmt: skip


def alert(summary="Labels and answers have moved apart (cusum).", **changed):
    """Return one alert."""
    return {
        "status": "firing",
        "labels": LABELS,
        "annotations": {"summary": summary, "runbook_url": "docs/runbook.md#conceptdrift"},
        "startsAt": "2026-11-30T06:00:00.123456789Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "0123456789abcdef",
        **changed,
    }


def message(*alerts):
    """Return what is sent of alerts."""
    return {
        "version": "4", "groupKey": '{}/{trigger="concept-drift"}:{alertname="ConceptDrift"}', "truncatedAlerts": 0,
        "status": "firing", "receiver": "retraining", "groupLabels": {"alertname": "ConceptDrift"},
        "commonLabels": LABELS, "commonAnnotations": {}, "externalURL": "http://alertmanager", "alerts": list(alerts),
    }  # fmt: skip
