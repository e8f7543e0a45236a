"""A client of redis-py that does nothing by itself that would take long."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

from dspy_cachectl.config.shared import Shared

_PROCESS = re.compile(rb"^run_id:(\w{1,64})", re.MULTILINE)
_MOST_CONNECTIONS = 32
"""More than there are threads, stuck ones included."""


def connect(address: Shared, told: Callable[[str], None]) -> Any:
    """Return such a client. Nothing is connected to yet, but for a cluster, which is asked who has what.

    Args:
        address: Where the server is, and within which time it has to reply.
        told: Told at each new connection which process of the server it leads to, where that can be known: one that
            was started anew may have lost what the one before it had. Nothing is told of a cluster.
    """
    import redis.cluster
    import redis.sentinel
    from redis.backoff import NoBackoff
    from redis.maint_notifications import MaintNotificationsConfig
    from redis.retry import Retry

    usual: dict[str, Any] = {
        "socket_timeout": address.patience,
        "socket_connect_timeout": address.patience,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "max_connections": _MOST_CONNECTIONS,
        "protocol": 2,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    own = {**usual, **address.options}
    if address.kind == "cluster":
        node: Any = redis.cluster.ClusterNode  # it has no types
        own.pop("db")
        nodes = [node(host, port) for host, port in address.nodes]
        return redis.RedisCluster(startup_nodes=nodes, require_full_coverage=False, **own)

    def connected(connection: Any) -> None:
        connection.on_connect()
        connection.send_command("INFO", "server")
        with contextlib.suppress(redis.exceptions.ResponseError):  # not everybody may ask
            found = _PROCESS.search(connection.read_response())
            if found is not None:
                told(found[1].decode())

    own["redis_connect_func"] = connected
    if address.kind == "sentinel":
        sentinel: Any = redis.sentinel.Sentinel
        usual.pop("max_connections")
        sentinels = sentinel(address.nodes, sentinel_kwargs={**usual, **address.sentinel_options}, **own)
        return sentinels.master_for(address.service)
    if address.path:
        return redis.Redis(unix_socket_path=address.path, **own)
    ((host, port), *_) = address.nodes
    return redis.Redis(host=host, port=port, **own)
