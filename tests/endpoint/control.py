"""The control path, `/_control/*`: how a test reads the counts and sets the faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from .faults import Rule
from .protocol import Reply, Request
from .service import Service, json_reply


class Control:
    """Routes of one service; none of them is counted as a request."""

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop
        self._routes: dict[str, Callable[[dict[str, Any]], Reply]] = {
            "state": self._state,
            "counts": lambda _: json_reply(service.counts),
            "log": lambda _: json_reply(list(service.log)),
            "reset": self._reset,
            "fail": self._fail,
            "clear_faults": self._clear_faults,
            "configure": self._configure,
            "hold": self._hold,
            "release": lambda _: json_reply({"released": service.release()}),
            "wait": self._wait,
            "batches": self._batches,
        }

    def __call__(self, request: Request) -> Reply:
        """Answer any request that came in."""
        if request.path == "/health":
            return json_reply({"status": "ok"})
        if not request.path.startswith("/_control/"):
            return self._service.answer(request)
        route = self._routes.get(request.path.removeprefix("/_control/"))
        if route is None:
            return json_reply({"error": f"no control route {request.path}"}, 404)
        try:
            return route(orjson.loads(request.body) if request.body else {})
        except (TypeError, ValueError) as error:
            return json_reply({"error": str(error)}, 400)

    def _state(self, _: dict[str, Any]) -> Reply:
        service = self._service
        return json_reply(
            {
                "requests": service.requests,
                "paths": service.paths,
                "in_flight": service.in_flight,
                "peak": service.peak,
                "held": len(service.held),
            }
        )

    def _reset(self, options: dict[str, Any]) -> Reply:
        if options.get("counts_only"):
            self._service.reset_counts()
        else:
            self._service.reset()
        return json_reply({})

    def _fail(self, options: dict[str, Any]) -> Reply:
        self._service.rules.append(Rule.from_options(options))
        return json_reply({})

    def _clear_faults(self, _: dict[str, Any]) -> Reply:
        self._service.rules.clear()
        return json_reply({})

    def _configure(self, options: dict[str, Any]) -> Reply:
        self._service.configure(options)
        return json_reply({})

    def _hold(self, options: dict[str, Any]) -> Reply:
        self._service.hold(options.get("match", ""))
        return json_reply({})

    def _batches(self, options: dict[str, Any]) -> Reply:
        """Let the batches that are not done come to an end, where one is named. Tell of all batches."""
        batches = self._service.batches
        for batch in batches.made.values():
            if "ending" in options and batch.status == "in_progress":
                batches.finish(batch, options["ending"])
        return json_reply([{**one.shown(), "lines": one.lines} for one in batches.made.values()])

    def _wait(self, options: dict[str, Any]) -> Reply:
        """Answer when so many requests have arrived, or after `timeout` seconds; `arrived` says which."""
        future = self._service.arrived(int(options["requests"]))
        reply = json_reply({"arrived": True})
        if not future.done():
            reply.ready = self._loop.create_future()
            timer = self._loop.call_later(float(options.get("timeout", 10.0)), _give_up, future)
            future.add_done_callback(lambda _: _answer_wait(reply, timer, future))
        return reply


def _give_up(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.cancel()


def _answer_wait(reply: Reply, timer: asyncio.TimerHandle, future: asyncio.Future[None]) -> None:
    timer.cancel()
    if future.cancelled():
        reply.chunks = [b'{"arrived":false}']
    assert reply.ready is not None
    if not reply.ready.done():
        reply.ready.set_result(None)
