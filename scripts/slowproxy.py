"""A TCP proxy that makes a near server a distant one: all that passes is delayed."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class SlowProxy:
    """Listens on a free loopback port (``host``) for ``upstream``, HOST:PORT.

    A round trip takes ``delay_s`` seconds more; no bandwidth is taken away.  Entering starts it,
    leaving stops it.
    """

    def __init__(self, upstream: str, delay_s: float) -> None:
        name, _, port = upstream.rpartition(":")
        self._upstream, self._delay_s = (name, int(port)), delay_s
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._ready = threading.Event()
        self.host = ""

    def __enter__(self) -> SlowProxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._ended.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        # At the end all are cancelled, which the loop would complain of.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there = await asyncio.open_connection(*self._upstream)
            writers.append(there[1])
            await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))
            for one in writers:
                one.close()
                await one.wait_closed()  # once the last bytes are sent
            return
        for one in writers:
            if one.transport.get_write_buffer_size():
                one.transport.abort()  # not once it is lost: asyncio fails then
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Half of the delay in each direction; what comes meanwhile follows at its own distance."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)

        async def send() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        sending = asyncio.ensure_future(send())
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await waiting.put((self._loop.time() + self._delay_s / 2, data))
        await waiting.put((self._loop.time() + self._delay_s / 2, b""))
        with contextlib.suppress(OSError):
            await sending
