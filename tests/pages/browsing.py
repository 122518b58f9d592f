"""Pages as a browser lays them out, asked over Chromium's own protocol."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

# What Chromium calls the keys that tests press: the key, its code, its number and the text that it types.
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "ArrowDown": (40, ""), "Space": (32, " ")}


class Tab:
    """A page that is open."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self.call = call

    async def evaluate(self, expression: str) -> Any:
        """Return what an expression, or the promise that it is, comes to; what it throws is an AssertionError."""
        done = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def wait(self, condition: str) -> None:
        """Wait until an expression is true, for at most half a minute."""
        for _ in range(600):
            if await self.evaluate(f"Boolean({condition})"):
                return
            await asyncio.sleep(0.05)
        text = await self.evaluate("document.body.innerText")
        raise AssertionError(f"it did not come to {condition} within 30 s; the page says:\n{text}")

    async def press(self, key: str) -> None:
        """Press a key of `KEYS` and let it go."""
        number, text = KEYS[key]
        about = {"key": " " if key == "Space" else key, "code": key, "windowsVirtualKeyCode": number}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    async def type(self, text: str) -> None:
        """Type a text where the focus is."""
        await self.call("Input.insertText", text=text)

    async def resize(self, width: int, height: int = 900, media: str = "screen", scheme: str = "light") -> None:
        """Make the window so many CSS pixels wide and high, for a screen or for paper, light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", media=media, features=preferred)

    async def picture(self, begin: str, end: str) -> bytes:
        """Return what the page looks like as a PNG, from the top of what one selector finds to the end of another."""
        box = "document.querySelector('%s').getBoundingClientRect().%s + scrollY"
        top, bottom = await self.evaluate(box % (begin, "top")) - 16, await self.evaluate(box % (end, "bottom")) + 16
        width = await self.evaluate("innerWidth")
        clip = {"x": 0, "y": top, "width": width, "height": bottom - top, "scale": 1}
        shot = await self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@asynccontextmanager
async def tab(browser: str, address: str) -> AsyncIterator[Tab]:
    """Open a page and close it again."""
    async with aiohttp.ClientSession() as session:
        async with session.put(f"http://{browser}/json/new?about:blank") as opened:
            target = await opened.json()
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            sent = 0

            async def call(method: str, **parameters: Any) -> Any:
                nonlocal sent
                sent += 1
                await socket.send_json({"id": sent, "method": method, "params": parameters})
                while (found := await socket.receive_json()).get("id") != sent:
                    pass
                return found["result"]

            made = Tab(call)
            # What the page's Content-Security-Policy refuses is kept from the first byte on.
            noting = (
                "addEventListener('securitypolicyviolation', e => refused.push(e.violatedDirective + e.blockedURI))"
            )
            await call("Page.enable")
            await call("Page.addScriptToEvaluateOnNewDocument", source=f"window.refused = []; {noting}")
            # It returns when the page is there in the place of the blank one.
            await call("Page.navigate", url=address)
            await made.evaluate(
                "new Promise(r => document.readyState == 'complete' ? r(1) : addEventListener('load', () => r(1)))"
            )
            yield made
        async with session.get(f"http://{browser}/json/close/{target['id']}"):
            pass


def ask(browser: str, page: Path, width: int, expression: str, media: str = "screen", scheme: str = "light") -> Any:
    """Open a page as wide as told, for a screen or for paper; return what an expression is there."""

    async def answer() -> Any:
        async with tab(browser, page.as_uri()) as opened:
            await opened.resize(width, media=media, scheme=scheme)
            return await opened.evaluate(expression)

    return asyncio.run(answer())
