"""Execute the notebooks on a workspace, and write what they show: `make notebooks`.

Each becomes a notebook with its outputs and one HTML page that needs no network, with the code folded away. The
repository's own notebooks stay without outputs.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import tempfile
import time
from html import escape
from pathlib import Path
from typing import Any

from bike_pipeline.errors import BikePipelineError, StorageError
from bike_pipeline.extras import require

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
# Seconds that one cell may take: loading TensorFlow is the longest.
_CELL_SECONDS = 300
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 15px/1.55 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 2rem auto; max-width: 70rem;
  padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; }} h2 {{ font-size: 1.2rem; margin-top: 2.2rem; }} p, li {{ max-width: 48rem; }}
table {{ font-size: 14px; }} img {{ max-width: 100%; height: auto; }} .shown {{ margin: .8rem 0; overflow-x: auto; }}
details {{ color: #57606a; font-size: 13px; }} pre {{ background: #f4f6f8; padding: .5rem; overflow-x: auto; }}
</style></head><body>
{body}
</body></html>
"""


def notebooks() -> list[Path]:
    """Return the notebooks in the order in which they are read."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def execute(path: Path, scratch: str) -> Any:
    """Return a notebook with the outputs of every cell, executed in a kernel of its own.

    Args:
        path: the notebook.
        scratch: folder for the kernel's sockets; its path must be short.

    Raises:
        StorageError: a cell failed; the message is the cell's own.
    """
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        # Sockets in a folder of this user's own: nobody else on the machine can talk to the kernel.
        km=AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{scratch}/{path.stem}"),
        timeout=_CELL_SECONDS,
        extra_arguments=["--HistoryManager.enabled=False"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute(cleanup_kc=True)
    except CellExecutionError as error:
        said = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback or str(error)).strip()
        ours = re.findall(r"^error: (.+)$", said, re.MULTILINE)
        raise StorageError(ours[-1] if ours else said, where=path.name) from None
    return notebook


def as_page(notebook: Any, title: str) -> str:
    """Return an executed notebook as one HTML page: words, pictures and tables, with the code folded away."""
    from markdown_it import MarkdownIt

    words = MarkdownIt("commonmark").enable("table")
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(words.render(cell.source))
            continue
        parts += [f'<div class="shown">{_output(output)}</div>' for output in cell.outputs]
        parts.append(f"<details><summary>code</summary><pre>{escape(cell.source)}</pre></details>")
    return _PAGE.format(title=escape(title), body="\n".join(parts))


def _output(output: Any) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return str(data["text/html"])
    if "image/png" in data:
        content = "".join(data["image/png"].split())
        base64.b64decode(content, validate=True)
        size = output.metadata.get("image/png", {})
        width = f' width="{int(size["width"])}"' if "width" in size else ""
        return f'<img alt="{escape(str(data.get("text/plain", "")))}"{width} src="data:image/png;base64,{content}">'
    return f"<pre>{escape(str(data.get('text/plain', output.get('text', ''))))}</pre>"


def main() -> None:
    """Execute all of them, or those that are named, and print where the pages are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="notebooks such as 02_lineage; all where none is named")
    parser.add_argument("--output", type=Path, default=None, help="folder; by default <workspace>/notebooks")
    given = parser.parse_args()
    try:
        require("notebooks", "executing the notebooks")
        from bike_pipeline import Workspace

        # Whatever is missing is said once, and not by the first cell of each.
        output = given.output or Workspace.from_environment().champion().settings.workspace_path / "notebooks"
        output.mkdir(parents=True, exist_ok=True)
        chosen = [path for path in notebooks() if not given.names or path.stem in given.names]
        if not chosen:
            parser.error(f"no such notebook; there are {', '.join(path.stem for path in notebooks())}")
        with tempfile.TemporaryDirectory(prefix="bike-pipeline-kernel-") as scratch:
            # Nothing of a kernel stays in the home folder.
            os.environ.update(IPYTHONDIR=scratch, JUPYTER_RUNTIME_DIR=scratch, PYDEVD_DISABLE_FILE_VALIDATION="1")
            for path in chosen:
                _write(path, output, scratch)
    except BikePipelineError as error:
        print(f"notebooks: error: {error}", file=sys.stderr)
        raise SystemExit(int(error.exit_code)) from None


def _write(path: Path, output: Path, scratch: str) -> None:
    import nbformat

    began = time.monotonic()
    notebook = execute(path, scratch)
    nbformat.write(notebook, output / path.name)  # type: ignore[no-untyped-call]
    page = output / f"{path.stem}.html"
    page.write_text(as_page(notebook, path.stem), encoding="utf-8")
    print(f"{page}  ({time.monotonic() - began:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
