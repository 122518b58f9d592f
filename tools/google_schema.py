"""The schema of Google's provider for OpenTofu, as it is published with the bindings of CDK for Terraform.

The provider itself is in no package registry. Its bindings are (MPL-2.0), and their assembly (`.jsii`) has of every
resource the arguments, which of them are required, their types and their blocks. It does not tell a set from a list,
which values an argument may have, which arguments exclude each other, or what is within a computed object.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# By the provider's version, the package of bindings and its hash: the oldest and the newest that the module is held to.
PACKAGES = {
    "6.50.0": (
        "cdktf-cdktf-provider-google==16.12.1",
        "sha256:88d021c89e1cf2abf2c935716d6548d26fe3da4bed30713d4fa36df1ef137436",
    ),
    "8.7.0": (
        "cdktn-provider-google==21.1.0",
        "sha256:157dead5025d5db5abe48e40cc49f0b6a4d8088fd0498eb17ad5a36bca811b2a",
    ),
}
_ARGUMENT = re.compile(r"#(\w+) \w+#")
_RESOURCE = re.compile(r"/(resources|data-sources)/\w+ (google_\w+)\}")


def fetch(version: str, folder: Path) -> str:
    """Write `google-VERSION.json` into a folder; return "" or why it is not to be had."""
    package, hashed = PACKAGES[version]
    with tempfile.TemporaryDirectory(dir=folder) as made:
        requirements = Path(made) / "requirements.txt"
        requirements.write_text(f"{package} --hash={hashed}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", f"--dest={made}", f"--requirement={requirements}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return " ".join(done.stderr.split("\n")[:2])
        [wheel] = Path(made).glob("*.whl")
        target = Path(made) / "schema.json"
        target.write_text(json.dumps(schema(_assembly(wheel))), encoding="utf-8")
        target.replace(folder / f"google-{version}.json")
    return ""


def _assembly(wheel: Path) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as files:
        [name] = [one for one in files.namelist() if one.endswith(".jsii.tgz")]
        package = io.BytesIO(files.read(name))
    with tarfile.open(fileobj=package) as files:
        member = files.extractfile("package/.jsii")
        assert member is not None
        return dict(json.load(member)["types"])


def schema(types: Mapping[str, Any]) -> dict[str, Any]:
    """Return the blocks of the provider, of its resources and of its data sources, by their names.

    Args:
        types: those of an assembly, by their full names.
    """
    blocks: dict[str, Any] = {"provider": {}, "resources": {}, "data-sources": {}}
    for name, one in types.items():
        if one.get("base", "").endswith(".TerraformProvider"):
            blocks["provider"] = _block(types, types[f"{name}Config"])
        elif resource := _RESOURCE.search(one.get("docs", {}).get("summary", "")):
            block = _block(types, types[f"{name}Config"])
            for computed in one.get("properties", ()):
                attribute = _snake(computed["name"])
                if not computed.get("static") and not attribute.endswith("_input") and attribute not in block["blocks"]:
                    kind = computed["type"].get("primitive")
                    block["attributes"].setdefault(attribute, {"type": _type(computed["type"]) if kind else "dynamic"})
            blocks[resource[1]][resource[2]] = block
    return blocks


def _block(types: Mapping[str, Any], interface: Mapping[str, Any], within: tuple[str, ...] = ()) -> dict[str, Any]:
    block: dict[str, Any] = {"attributes": {}, "blocks": {}}
    for one in interface.get("properties", ()):
        link = _ARGUMENT.search(" ".join(map(str, one["docs"].values())))
        argument = link[1] if link else _snake(one["name"])
        kind, required = _type(one["type"]), not one.get("optional", False)
        own = kind[1] if isinstance(kind, list) else kind
        if own in within:
            # Bindings give two blocks of one shape one type; where it is in itself, nobody knows how deep.
            continue
        if own in types:
            inner = _block(types, types[own], (*within, own))
            # Bindings have no list where there is at most one.
            block["blocks"][argument] = {"min": int(required), "max": int(own is kind), "block": inner}
        else:
            block["attributes"][argument] = {"type": kind, "required": required, "optional": not required}
    return block


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _type(one: Mapping[str, Any]) -> Any:
    """Return a type as the language writes it in JSON, or the full name of an interface for a block."""
    if "union" in one:
        # What is known only later is of any type.
        [one] = [part for part in one["union"]["types"] if not part.get("fqn", "").endswith(".IResolvable")]
    if "collection" in one:
        kind = {"array": "list", "map": "map"}[one["collection"]["kind"]]
        return [kind, _type(one["collection"]["elementtype"])]
    return {"boolean": "bool"}.get(one.get("primitive", ""), one.get("primitive") or one["fqn"])
