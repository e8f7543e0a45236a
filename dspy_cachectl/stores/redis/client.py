"""The way to a server, a cluster, or what sentinels name: commands within their time, and circuits for each node."""

from __future__ import annotations

import importlib.util
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from dspy_cachectl.boundary.secrets import scrub_head
from dspy_cachectl.config.shared import Shared
from dspy_cachectl.errors import MissingExtraError, StoreError, StoreUnavailableError
from dspy_cachectl.stores.redis.circuit import Circuit, Doing
from dspy_cachectl.stores.redis.commands import Command, NoReplyError, Script
from dspy_cachectl.stores.redis.connection import connect
from dspy_cachectl.stores.redis.lanes import Lanes
from dspy_cachectl.stores.redis.workers import Times, TooLateError, Workers

_T = TypeVar("_T")

_SCANNED = 5000
"""How many keys a server walks through at once: some milliseconds."""
_LONGEST = 200
"""How much of what a server says is told."""
_ONLY_WRITING = ("OOM", "READONLY", "MISCONF", "NOREPLICAS")
"""What a server says that cannot be written, and has answers to give all the same."""
_IN_SCRIPT = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.$")
"""Where in a script of ours it was refused, which is of no use to whoever reads it."""
_FULL = "the server is full, and removes nothing to make room (see its maxmemory and maxmemory-policy)"
_NOT_AT_ALL = ("LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "NOAUTH", "WRONGPASS", "BUSY")


class Client:
    """Runs commands. Thread-safe; after a fork the child begins with connections of its own.

    Args:
        address: Where the server is.
        probe: Returns the key that is written and read to try the node that has a tag.
        tags: The tags: each is the part of a key's name that tells the slot.
        on_back: Called in a thread of this client's when a node can be used again, or was started anew.

    Raises:
        MissingExtraError: If the package `redis` is not installed.
    """

    def __init__(
        self, address: Shared, *, probe: Callable[[str], bytes], tags: Sequence[str], on_back: Callable[[], None]
    ) -> None:
        if importlib.util.find_spec("redis") is None:
            raise MissingExtraError("a store in Redis or Valkey", extra="redis")
        self.address = address
        self._probe = probe
        self._tags = tags
        self._on_back = on_back
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._redis: Any = None
        self._workers, self._lanes = Workers(), Lanes()
        self._circuits: dict[str, Circuit] = {}
        self._prober: threading.Thread | None = None
        self._process, self._is_another = "", False
        self.wakes = threading.Event()

    def after_fork(self) -> None:
        """Begin anew in the child."""
        self._begin()

    def close(self) -> None:
        """Let go of connections and threads. The next command makes others."""
        with self._lock:
            made, self._redis = self._redis, None
        self._workers.close()
        if made is not None:
            made.close()

    def rests(self, doing: Doing) -> bool:
        """Tell whether a node is not used for something at the moment."""
        return any(circuit.rests(doing) for circuit in list(self._circuits.values()))

    def run(self, doing: Doing, tag: str, command: Command, *, gains: bool = False, longer: float = 0.0) -> Any:
        """Return a server's reply.

        Args:
            doing: What the command does.
            tag: The tag in its key.
            command: The command.
            gains: Whether a reply other than none is worth waiting for.
            longer: For how many seconds more than usual it may take.

        Raises:
            StoreUnavailableError: If there is none within the time, or the node is not used at the moment.
        """
        self._load()
        node = self._node_of(tag)
        circuit = self._circuit(node, doing)
        reply, failed, times = None, None, Times()
        try:
            seconds = self.address.patience + longer
            found = self._lanes.ask(command, seconds, times)
            reply = found[0] if found else self._workers.run(partial(self._reply, command), seconds, times)
        except Exception as error:  # noqa: BLE001 - whatever a server makes its client raise
            failed = self._failed(error, doing, circuit)
        if circuit.spent(times, late=self._workers.late, gained=gains and reply is not None) or circuit.is_open:
            self._try_again()
        if failed is not None:
            raise failed
        return reply

    def many(self, doing: Doing, commands: Sequence[Command], *, seconds: float | None = None) -> list[Any]:
        """Return the replies to some commands that are sent at once; to any nodes.

        Args:
            doing: What the commands do.
            commands: The commands.
            seconds: How long all may take. None: as long as one.

        Raises:
            StoreUnavailableError: If one of them fails.
        """
        replies = self.each(doing, commands, seconds=seconds)
        for reply in replies:
            if isinstance(reply, StoreError):
                raise reply
        return replies

    def each(self, doing: Doing, commands: Sequence[Command], *, seconds: float | None = None) -> list[Any]:
        """Return likewise, with an error in the place of the reply to a command that alone was refused.

        Raises:
            StoreUnavailableError: If the server is away, or not used at the moment.
        """
        if not commands:
            return []
        for name in list(self._circuits):
            self._circuit(name, doing)
        self._load()
        # Of a cluster it is not known which node failed; its next command will tell.
        circuit = Circuit(self.address.patience) if self.address.kind == "cluster" else self._circuit("", doing)
        try:
            replies = self._workers.run(partial(self._replies, commands), seconds or self.address.patience)
            return [self._failed(one, doing, circuit) if isinstance(one, Exception) else one for one in replies]
        except Exception as error:  # noqa: BLE001 - see above
            failed = self._failed(error, doing, circuit)
        if circuit.is_open:
            self._try_again()
        raise failed

    def scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        """Yield the names of all keys that fit a pattern, on all nodes, some at a time; some may come twice.

        Raises:
            StoreUnavailableError: If a node fails.
        """
        for node in self._alone(self._nodes):
            cursor = 0
            while True:
                # Nothing but what the server walks through in a moment: others wait meanwhile.
                cursor, found = self._alone(partial(node.scan, cursor, match=pattern, count=_SCANNED))
                if found:
                    yield found
                if not cursor:
                    break

    def info(self, section: str) -> list[dict[str, Any]]:
        """Return what each node says of itself.

        Raises:
            StoreUnavailableError: If a node fails, or does not say it.
        """
        return [self._alone(partial(node.info, section)) for node in self._alone(self._nodes)]

    def _alone(self, action: Callable[[], _T]) -> _T:
        try:
            return self._workers.run(action, self.address.patience)
        except Exception as error:
            raise self._failed(error, "read", Circuit(self.address.patience)) from error

    def _load(self) -> None:
        """Load the client's package, for which no server is to blame."""
        if self._redis is None:
            import redis  # noqa: F401

    # -- what runs in a worker's thread

    def _nodes(self) -> list[Any]:
        made = self._made()
        return [one.redis_connection for one in made.get_primaries()] if self.address.kind == "cluster" else [made]

    def _made(self) -> Any:
        with self._lock:
            if self._redis is None:
                self._redis = connect(self.address, self._told)
            return self._redis

    def _told(self, process: str) -> None:
        """Note which process of the server a connection leads to."""
        before, self._process = self._process, process
        if before not in {"", process}:
            self._is_another = True
            self._try_again()

    def _reply(self, command: Command) -> Any:
        import redis

        client = self._made()
        if not isinstance(command[0], Script):
            reply = client.execute_command(*command)
            if command[0] == "GET" and self.address.kind == "server":
                self._lanes.keep(client.connection_pool)
            return reply
        script, key, *arguments = command
        try:
            reply = client.execute_command("EVALSHA", script.digest, 1, key, *arguments)
        except redis.exceptions.NoScriptError:
            reply = client.execute_command("EVAL", script.text, 1, key, *arguments)
        if not script.returns(reply):
            raise NoReplyError
        return reply

    def _replies(self, commands: Sequence[Command]) -> list[Any]:
        import redis

        replies = self._sent(commands, by_digest=True)
        unknown = [at for at, one in enumerate(replies) if isinstance(one, redis.exceptions.NoScriptError)]
        if unknown:
            told = self._sent([commands[at] for at in unknown], by_digest=False)
            for at, reply in zip(unknown, told, strict=True):
                replies[at] = reply
        for (action, *_), reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception) and not self._is_of_one(reply):
                raise reply
            if isinstance(action, Script) and not (isinstance(reply, Exception) or action.returns(reply)):
                raise NoReplyError
        return replies

    def _is_of_one(self, error: Exception) -> bool:
        """Tell whether a command was refused by a server that may do others."""
        return not self._meaning(error, "write")[1]

    def _sent(self, commands: Sequence[Command], *, by_digest: bool) -> list[Any]:
        pipeline = self._made().pipeline(transaction=False)
        for command in commands:
            if isinstance(command[0], Script):
                script, key, *arguments = command
                how = ("EVALSHA", script.digest) if by_digest else ("EVAL", script.text)
                pipeline.execute_command(*how, 1, key, *arguments)
            else:
                pipeline.execute_command(*command)
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    # -- faults

    def _node_of(self, tag: str) -> str:
        """Return the name of the node that has a tag; "" for the only one, or where it is not known yet."""
        if self.address.kind != "cluster" or self._redis is None:
            return ""
        try:
            node = self._redis.get_node_from_key(f"{{{tag}}}")
        except Exception:  # noqa: BLE001 - a slot that nobody has at the moment
            return ""
        return "" if node is None else str(node.name)

    def _circuit(self, node: str, doing: Doing) -> Circuit:
        circuit = self._circuits.get(node)
        if circuit is None:
            circuit = self._circuits.setdefault(node, Circuit(self.address.patience))
        if circuit.rests(doing):
            raise self._unavailable(f"is not asked for a while: {circuit.why}")
        return circuit

    def _unavailable(self, said: str) -> StoreUnavailableError:
        return StoreUnavailableError(f"the store {self.address.shown} {said}")

    def _failed(self, error: Exception, doing: Doing, circuit: Circuit) -> StoreError:
        """Return the error for the caller. What would hold up others, or fail for them too, is not asked again."""
        if isinstance(error, StoreError):
            return error
        why, sides = self._meaning(error, doing)
        if sides:
            circuit.failed(why, *sides)
        if isinstance(error, TooLateError) and error.begun:
            self._drop_connections()
        failed = self._unavailable(f"failed: {why}")
        failed.__cause__ = error
        return failed

    def _meaning(self, error: Exception, doing: Doing) -> tuple[str, tuple[Doing, ...]]:
        import redis

        if isinstance(error, TooLateError):
            return f"there was no reply within {self.address.patience:g} s", ("read", "write") if error.begun else ()
        said = _IN_SCRIPT.sub("", str(error).partition("\n")[0]) or type(error).__name__
        said = scrub_head(said, _LONGEST)
        if isinstance(error, redis.exceptions.ResponseError):
            word = str(error).partition(" ")[0]
            if isinstance(error, redis.exceptions.OutOfMemoryError):
                return _FULL, ("write",)
            if isinstance(error, redis.exceptions.ReadOnlyError):
                return said, ("write",)
            if word in _ONLY_WRITING:
                return said, (doing,)
            if word not in _NOT_AT_ALL and not isinstance(error, redis.exceptions.ClusterError):
                return said, ()
        return said, ("read", "write")

    def _drop_connections(self) -> None:
        """Wake up who waits for a server that does not reply."""
        made = self._redis
        if made is None or self.address.kind == "cluster":  # there each node's time-out ends it
            return
        made.connection_pool.disconnect(inuse_connections=True)

    # -- trying again

    def _try_again(self) -> None:
        with self._lock:
            if self._prober is None:
                self._prober = threading.Thread(
                    target=_probe_in_background,
                    args=(weakref.ref(self),),
                    name="dspy-cachectl-redis-probe",
                    daemon=True,
                )
                try:
                    self._prober.start()
                except RuntimeError:  # the interpreter is about to end
                    self._prober = None
        self.wakes.set()

    def next_trial(self) -> float | None:
        """Return in how many seconds the next node is to be tried; None where all are used."""
        with self._lock:
            if self._is_another and not self.rests("read"):
                return 0.0
            waits = [circuit.due_in() for circuit in self._circuits.values() if circuit.is_open]
            if not waits:
                self._prober = None
            return min(waits) if waits else None

    def try_nodes(self) -> None:
        """Try those that are to be tried. In the thread of the background."""
        if self._is_another and not self.rests("read"):
            self._has_come_back()
        for name, circuit in list(self._circuits.items()):
            if not circuit.is_open or circuit.due_in() > 0:
                continue
            tag = next((tag for tag in self._tags if self._node_of(tag) == name), None)
            if tag is None and name:  # a node that is no more, or not of this cluster
                self._circuits.pop(name, None)
                continue
            self._try_node(circuit, self._probe(tag or self._tags[0]))

    def _try_node(self, circuit: Circuit, key: bytes) -> None:
        tried: dict[Doing, Callable[[], bool]] = {
            "write": lambda: self._reply(("SET", key, b"1", "PX", 60_000)) is True,
            "read": lambda: self._reply(("GET", key)) in {b"1", None},
        }
        ended: dict[Doing, bool] = {}
        for doing, works in tried.items():
            try:
                ended[doing] = self._workers.run(works, self.address.patience)
            except Exception as error:  # noqa: BLE001 - it does not work yet
                ended[doing] = False
                circuit.why = self._meaning(error, doing)[0]
                if isinstance(error, TooLateError):
                    self._drop_connections()
                    ended["read"] = False
                    break
        circuit.tried(lambda doing: ended[doing])
        if not circuit.is_open:
            self._has_come_back()

    def _has_come_back(self) -> None:
        self._is_another = False
        self._on_back()


def _probe_in_background(reference: weakref.ref[Client]) -> None:
    while (client := reference()) is not None:
        wakes = client.wakes
        wakes.clear()
        wait = client.next_trial()
        if wait is None:
            return
        if wait <= 0:
            client.try_nodes()
        del client
        wakes.wait(max(wait, 0.01))
