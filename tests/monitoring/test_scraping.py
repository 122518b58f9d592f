"""The real Prometheus at a server whose metrics are closed to whoever has no key."""

from __future__ import annotations

import pytest
import yaml

from tests.database_servers import free_port
from tests.monitoring.alerting import get, prometheus_configuration, wait_for
from tests.monitoring_servers import command, started
from tests.serving.running import push, running_server, simple_model

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
def test_a_closed_server_is_scraped_with_its_key_alone(tmp_path):
    command("prometheus")
    base, workspace = tmp_path / "models", tmp_path / "workspace"
    push(base, simple_model(tmp_path / "model", 1.0), 1)
    key = "0123456789abcdef" * 2
    (tmp_path / "key").write_text(key)
    closed = f"serving.server.key_file={tmp_path / 'key'}"
    with running_server(base, workspace, closed) as server:
        port = int(server.rest.rpartition(":")[2])
        for number, (given, health) in enumerate(((key, "up"), ("what-somebody-guessed", "down"), (None, "down"))):
            folder, own = tmp_path / str(number), free_port()
            folder.mkdir()
            path = prometheus_configuration(folder, free_port(), serving=port, monitor=free_port())
            told = yaml.safe_load(path.read_text())
            if given is not None:
                # As the line of the shipped file that is commented out.
                (folder / "token").write_text(given)
                told["scrape_configs"][0]["authorization"] = {"credentials_file": str(folder / "token")}
                path.write_text(yaml.safe_dump(told))
            arguments = (
                f"--config.file={path}",
                f"--storage.tsdb.path={folder}",
                f"--web.listen-address=127.0.0.1:{own}",
            )
            with started(folder, "prometheus", *arguments):

                def target(own=own):
                    found = get(own, "/api/v1/targets")["data"]["activeTargets"]
                    ours = (one for one in found if one["labels"]["job"] == "bike-serving")
                    return next((one for one in ours if one["health"] != "unknown"), None)

                one = wait_for(target, "scrape")
                assert one["health"] == health, one
                assert ("401" in one["lastError"]) == (health == "down")
