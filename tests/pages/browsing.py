"""Pages as a browser lays them out, asked over Chromium's own protocol."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp


def ask(browser: str, page: Path, width: int, expression: str, media: str = "screen", scheme: str = "light") -> Any:
    """Open a page as wide as told, for a screen or for paper; return what an expression is there."""

    async def answer() -> Any:
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://{browser}/json/new?{page.as_uri()}") as opened:
                target = await opened.json()
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:

                async def call(number: int, method: str, **parameters: Any) -> Any:
                    await socket.send_json({"id": number, "method": method, "params": parameters})
                    while (found := await socket.receive_json()).get("id") != number:
                        pass
                    return found["result"]

                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                await call(1, "Emulation.setDeviceMetricsOverride", **size)
                preferred = [{"name": "prefers-color-scheme", "value": scheme}]
                await call(2, "Emulation.setEmulatedMedia", media=media, features=preferred)
                ready = "new Promise(r => document.readyState == 'complete' ? r(1) : addEventListener('load', r))"
                await call(3, "Runtime.evaluate", expression=ready, awaitPromise=True)
                return (await call(4, "Runtime.evaluate", expression=expression, awaitPromise=True))["result"]["value"]

    return asyncio.run(answer())
