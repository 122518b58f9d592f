"""REST, asynchronous: aiohttp."""

from __future__ import annotations

import os
from typing import TypeVar

import aiohttp

from bike_pipeline.serving.clients import rest_messages
from bike_pipeline.serving.clients.answers import no_answer
from bike_pipeline.serving.clients.connection import Connection
from bike_pipeline.serving.clients.core import AsyncClient, Exchange
from bike_pipeline.serving.clients.errors import timed_out, unreachable

Value = TypeVar("Value")


class AsyncRestClient(AsyncClient):
    """A client over REST for one event loop."""

    def __init__(self, connection: Connection) -> None:
        """Prepare; the first request opens a connection.

        Raises:
            ConfigurationError: a certificate or key file cannot be used.
        """
        super().__init__(connection, rest_messages.RestMessages(connection))
        self._context = connection.ssl_context()
        self._opened: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            connection = self.connection
            scheme = "https" if connection.tls else "http"
            self._opened = aiohttp.ClientSession(
                f"{scheme}://{connection.authority}",
                connector=aiohttp.TCPConnector(limit=0, ssl=self._context or False),
                headers={"content-type": "application/json", "accept": "application/json", **connection.credentials},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._opened

    async def _send(self, exchange: Exchange[Value], seconds: float) -> Value:
        where = self.connection.where
        try:
            async with self._session.request(
                exchange.method,
                exchange.target,
                data=exchange.body,
                timeout=aiohttp.ClientTimeout(total=seconds),
                allow_redirects=False,
            ) as response:
                body = await response.read()
                status, headers = response.status, response.headers
        except TimeoutError:
            raise timed_out(self.connection.timeout, where) from None
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise unreachable(str(error), where, untrusted=True) from None
        except aiohttp.ClientConnectorError as error:
            # asyncio puts its own words in the place of the system's, but not for names that nobody knows.
            number = error.errno or 0
            raise unreachable(os.strerror(number) if number > 0 else str(error.os_error), where) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            raise unreachable("the connection ended before an answer", where) from None
        except aiohttp.ClientError:
            raise no_answer("the answer is not HTTP", where) from None
        return rest_messages.read(exchange, status, headers, body, where)

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()
