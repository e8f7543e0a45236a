"""The server process: prints its port, serves until its standard input closes.

Run as `python -m tests.endpoint.server ['{"seed": 1}']` from the root of the checkout.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import orjson

from .config import Config
from .control import Control
from .protocol import HttpProtocol
from .service import Service


async def serve(config: Config) -> None:
    """Bind a free port on the loopback, print it, and serve until the parent is gone."""
    loop = asyncio.get_running_loop()
    control = Control(Service(config, loop), loop)
    server = await loop.create_server(lambda: HttpProtocol(control, loop), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    stopped = asyncio.Event()
    threading.Thread(target=_watch_stdin, args=(loop, stopped), daemon=True).start()
    await stopped.wait()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    # The parent holds the other end and never writes: the read returns when the parent closes it or dies.
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stopped.set)


def main(arguments: Sequence[str]) -> int:
    """Serve with the configuration given as one JSON object, if any."""
    config = Config().changed(orjson.loads(arguments[0]) if arguments else {})
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(config))
    else:
        uvloop.run(serve(config))
    # Requests may be hanging on purpose; nobody is left to read their answers.
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
