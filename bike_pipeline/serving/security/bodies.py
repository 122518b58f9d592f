"""Reads the body of a REST request that may have one: bounded in size and time, counted, and unpacked."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import hdrs, web

from bike_pipeline.serving.security.limits import Share
from bike_pipeline.serving.statuses import Code, StatusError, invalid

# What is unpacked at once: short enough to do it within the event loop, and else a step in a thread.
_SHORT = 64 * 1024
_STEP = 1024 * 1024
# Where the guard leaves to the handler what it has read; nothing if there is no body, or must be none.
BODY = web.RequestKey("body", bytes)
ENCODINGS = "gzip, deflate"


def arrived(request: web.Request) -> bytes:
    """Return a short body that is there already and not packed; else nothing."""
    content = request.content
    if not content.is_eof() or content.total_bytes > _SHORT or hdrs.CONTENT_ENCODING in request.headers:
        return b""
    return content.read_nowait() if content.total_bytes <= request.client_max_size else b""


async def read(request: web.Request, share: Share, seconds: float) -> bytes:
    """Return the body of a request, unpacked.

    Args:
        request: its `client_max_size` bounds the body before and after it is unpacked.
        share: what the request holds; grows with it.
        seconds: how long the body may take to arrive.

    Raises:
        StatusError: it is too large, does not arrive in time, is packed in an unknown way or not as it says, or its
            client holds too much.
    """
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise StatusError(
            Code.INVALID_ARGUMENT, f"This Content-Encoding is not supported; send one of: {ENCODINGS}.", status=415
        )
    most = request.client_max_size
    length = request.content_length
    if length is not None:
        if length > most:
            raise too_large(most)
        share.take("bytes", length)
    body = await _arriving(request, share, seconds)
    return await _unpacked(body, encoding, share, most) if encoding not in {"", "identity"} else body


async def _arriving(request: web.Request, share: Share, seconds: float) -> bytes:
    content, most, counted = request.content, request.client_max_size, request.content_length is not None
    body = bytearray()
    try:
        if not content.is_eof() and request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            # Not before the client is known; `rest.expect_later` kept aiohttp from it.
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The answer is still to begin.
            request.writer.output_size = 0
        async with asyncio.timeout(seconds):
            while not content.at_eof():
                piece = await content.readany()
                if len(body) + len(piece) > most:
                    raise too_large(most)
                if not counted:
                    share.take("bytes", len(piece))
                body += piece
        return bytes(body)
    except TimeoutError:
        raise StatusError(Code.DEADLINE_EXCEEDED, "The request's body did not arrive in time.", status=408) from None
    finally:
        # Whoever keeps the error of a body that was left keeps this frame, but not the body.
        body.clear()


async def _unpacked(body: bytes, encoding: str, share: Share, most: int) -> bytes:
    """Return what a body holds; many bytes of it are unpacked in a thread, which does so beside other requests."""
    # Some send deflate without zlib's header, whose first four bits are 8.
    bare = encoding == "deflate" and body[:1] and body[0] & 0xF != 8
    bits = 16 + zlib.MAX_WBITS if "gzip" in encoding else -zlib.MAX_WBITS if bare else zlib.MAX_WBITS
    loop = asyncio.get_running_loop()
    found: list[bytes] = []
    size, rest = 0, body
    unpacker = zlib.decompressobj(bits)
    try:
        while not unpacker.eof:
            if size or len(body) > _SHORT:
                piece = await loop.run_in_executor(None, unpacker.decompress, rest, _STEP)
            else:
                piece = unpacker.decompress(rest, _SHORT)
            if not piece and not rest:
                break
            size += len(piece)
            if size > most:
                raise too_large(most)
            share.take("bytes", len(piece))
            found.append(piece)
            rest = unpacker.unconsumed_tail
            if unpacker.eof and "gzip" in encoding and unpacker.unused_data:
                # Another member (RFC 1952, 2.2).
                rest, unpacker = unpacker.unused_data, zlib.decompressobj(bits)
    except zlib.error:
        unpacker = zlib.decompressobj(bits)
    if not unpacker.eof:
        raise invalid("The request's body cannot be read.")
    return b"".join(found)


def too_large(limit: int) -> StatusError:
    """Return the refusal of a body that is larger than that many bytes."""
    return StatusError(
        Code.RESOURCE_EXHAUSTED, f"The request's body is larger than {limit} bytes; send several.", status=413
    )
