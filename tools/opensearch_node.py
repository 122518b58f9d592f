"""Fetch OpenSearch's own classes with Maven, once: a node of them is what the index template is held against.

Its distribution is in no package registry; its jars are on Maven Central. A node is one process of Java with the
server and its HTTP transport, without the plugins of the distribution, security among them. `make test-opensearch`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".opensearch"
VERSION = "2.19.6"
# Group, artifact, version.
DEPENDENCIES = (
    ("org.opensearch", "opensearch", VERSION),
    ("org.opensearch.plugin", "transport-netty4-client", VERSION),
    ("org.apache.logging.log4j", "log4j-core", "2.25.4"),
)
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>bike</groupId><artifactId>opensearch</artifactId><version>1</version>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
NODE = """\
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

public class BikeNode extends Node {
    BikeNode(Settings settings) {
        super(InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "bike"),
            List.of(Netty4Plugin.class), false);
    }

    public static void main(String[] arguments) throws Exception {
        new BikeNode(Settings.builder()
            .put("path.home", arguments[0])
            .put("http.port", arguments[1])
            .put("transport.port", "0")
            .put("network.host", "127.0.0.1")
            .put("discovery.type", "single-node")
            // A test's disk may be nearly full.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build()).start();
        new CountDownLatch(1).await();
    }
}
"""


def missing() -> str:
    """Return what this machine lacks for it, and how to get it; "" if nothing."""
    for program, fix in (("mvn", "maven"), ("javac", "default-jdk-headless")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian, Ubuntu: apt install {fix})"
    return ""


def command(home: Path, port: int, folder: Path = FOLDER) -> list[str] | None:
    """Return what starts a node with its data in `home` on a port of loopback; None where it was not fetched."""
    if not (folder / "BikeNode.class").is_file():
        return None
    places = f"{folder / 'libraries'}/*:{folder}"
    return ["java", "-Xms256m", "-Xmx256m", "-cp", places, "BikeNode", str(home), str(port)]


def fetch(folder: Path = FOLDER) -> str:
    """Fetch the jars and compile the node; return "" where they are there now, else why they are not."""
    if reason := missing():
        return reason
    folder.mkdir(parents=True, exist_ok=True)
    dependencies = "\n".join(
        f"    <dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, name, version in DEPENDENCIES
    )
    (folder / "pom.xml").write_text(POM.format(dependencies=dependencies), encoding="utf-8")
    libraries = folder / "libraries"
    shutil.rmtree(libraries, ignore_errors=True)
    copy = ["dependency:copy-dependencies", f"-DoutputDirectory={libraries}"]
    if subprocess.run(["mvn", "-q", "-B", "-f", str(folder / "pom.xml"), *copy], check=False).returncode:
        return "Maven could not fetch OpenSearch; see above"
    (folder / "BikeNode.java").write_text(NODE, encoding="utf-8")
    compiled = subprocess.run(
        ["javac", "-cp", f"{libraries}/*", "-d", str(folder), str(folder / "BikeNode.java")], check=False
    )
    return "" if compiled.returncode == 0 else "the node does not compile; see above"


def main() -> None:
    """Fetch it unless it is there."""
    reason = "" if command(FOLDER, 0) else fetch()
    if reason:
        sys.exit(f"opensearch: error: {reason}")
    print(f"opensearch: {VERSION} in {FOLDER}", flush=True)


if __name__ == "__main__":
    main()
