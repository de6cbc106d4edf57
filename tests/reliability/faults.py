"""A server between a client and S3 that makes faults: it refuses requests, is slow, and drops connections."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import ClientSession, ClientTimeout, web
from yarl import URL

REFUSED, SLOW, UNHEARD, CUT_SHORT = "refused", "slow", "unheard", "cut short"
"""Faults of a request: the answer 503; an answer that takes a second; a connection that is dropped before the request
is passed on; a connection that is dropped in the middle of the answer, after the server did what was requested."""

BUSY = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
OF_ONE_CONNECTION = {"connection", "transfer-encoding", "keep-alive", "expect"}


class FaultyProxy:
    """Passes requests on to an S3 server. A share of the requests gets each fault, drawn with a seed."""

    def __init__(self, url: str, seed: int, shares: dict[str, float]) -> None:
        self._target, self._shares, self._random = url, shares, random.Random(seed)  # noqa: S311
        self.happened: Counter[str] = Counter()
        self.url = ""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        fault = self._draw()
        self.happened[fault] += 1
        body = await request.read()
        if fault == REFUSED:
            return web.Response(status=503, text=BUSY, content_type="application/xml", headers={"Retry-After": "0"})
        if fault == UNHEARD:
            return self._hang_up(request)
        if fault == SLOW:
            await asyncio.sleep(1)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in OF_ONE_CONNECTION}
        target = URL(f"{self._target}{request.raw_path}", encoded=True)
        async with self._session.request(
            request.method, target, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            found = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in OF_ONE_CONNECTION}
            passed_on = web.StreamResponse(status=answer.status, headers=kept)
            await passed_on.prepare(request)
            if request.method == "HEAD":
                return passed_on
            if fault == CUT_SHORT:
                await passed_on.write(found[: len(found) // 2])
                return self._hang_up(request)
            await passed_on.write(found)
            await passed_on.write_eof()
            return passed_on

    def _draw(self) -> str:
        drawn = self._random.random()
        for fault, share in self._shares.items():
            if drawn < share:
                return fault
            drawn -= share
        return "passed"

    @staticmethod
    def _hang_up(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _serve(self, ready: threading.Event, ended: asyncio.Event) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, auto_decompress=False, access_log=None)
        self._session = ClientSession(auto_decompress=False, timeout=ClientTimeout(total=120))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await ended.wait()
        await self._session.close()
        await runner.cleanup()

    @contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        """Answer requests in another thread."""
        loop, ready, ended = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
        thread = threading.Thread(target=loop.run_until_complete, args=(self._serve(ready, ended),))
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()
            loop.close()
