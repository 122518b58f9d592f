"""The set-up's own modules, and programs that stand for others on the PATH."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


def load(name):
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


steps = load("steps")
c_runtime = load("c_runtime")
disk_space = load("disk_space")
bootstrap = load("bootstrap")


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def fake_python(folder, name, version, absent=(), base="", glibc="glibc 2.41"):
    answer = {
        "executable": str(folder / name),
        "base": base,
        "version": version,
        "glibc": glibc,
        "absent": list(absent),
        "headers": True,
        "libdir": "",
    }
    return program(folder, name, f"echo '{json.dumps(answer)}'")


def interpreter(glibc=(2, 41), headers=True):
    return bootstrap.Interpreter("/usr/bin/python3.12", (3, 12, 1), glibc, (), headers, "")
