"""What a cost model of many machines is made of: how many bytes go where, and how long they take on this machine.

    python -m benchmarks.scaling_pieces '{"env": "reacher", "rounds": 5}'      answers with one line of JSON

Bytes follow from shapes alone. Times are those of one parameter broadcast taken apart: from the device, through TCP on
the loopback interface, to the device.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.driver import spread
from benchmarks.machine import ROOT
from benchmarks.scaling_devices import NUM_STEPS, configuration
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.runtime.config import load_config
from jaxrl_engine.runtime.memory import bytes_of

ASYNC = ("async_color_lines.yaml", "async_cartpole.yaml")


def sync_bytes(env: str) -> dict[str, Any]:
    """What an update of the sync mode sums over the devices, and how often."""
    config = configuration(env, 8)
    built = build(config)
    params = jax.eval_shape(built.algorithm.init, built.keys, built.hyper).params
    return {
        "env": config.env,
        "steps_per_environment": NUM_STEPS,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "gradient_bytes": bytes_of(params),
        "gradient_steps": config.ppo.num_epochs * config.ppo.num_minibatches,
        "epochs": config.ppo.num_epochs,
    }


def async_bytes(file: str, rounds: int) -> dict[str, Any]:
    """What an actor sends and is sent, and the replay's memory; a broadcast of the parameters is timed."""
    config = load_config(ROOT / "configs" / file)
    built = build(config)
    program: Any = make_program(built)
    init = jax.jit(lambda key: built.algorithm.init(key, built.hyper).replace(optimizer=None))
    behaviour = init(built.keys)
    chunks = program.source.example(jax.eval_shape(lambda: behaviour))
    envs = config.num_envs // config.actors.num_workers
    return {
        "env": config.env,
        "steps_per_chunk": config.num_steps,
        "environments_per_actor": envs,
        "chunk_bytes": bytes_of(chunks) // envs,
        "broadcast_bytes": bytes_of(behaviour),
        "new_steps_per_update": config.samples_per_update,
        "replay_steps": config.impact.buffer_capacity,
        **broadcast_seconds(behaviour, rounds),
    }


def broadcast_seconds(tree: Any, rounds: int) -> dict[str, Any]:
    """Time taking a pytree from the device, sending as many bytes over loopback, and putting it onto the device."""
    raw = jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf, tree
    )
    host, told = jax.tree.map(np.array, jax.device_get(raw)), {}
    with Wire() as wire:
        message = bytes(bytes_of(raw))
        steps: dict[str, Callable[[], Any]] = {
            "get_seconds": lambda: jax.tree.map(np.array, jax.device_get(raw)),
            "send_seconds": lambda: wire.send(message),
            "put_seconds": lambda: jax.block_until_ready(jax.device_put(host)),
        }
        for name, step in steps.items():
            step()
            taken = []
            for _ in range(rounds * 10):
                begun = time.perf_counter()
                step()
                taken.append(time.perf_counter() - begun)
            told[name] = spread(taken)
    return told


class Wire:
    """A TCP connection over the loopback interface whose other end says when it has received all."""

    def __enter__(self) -> "Wire":
        listener = socket.create_server(("127.0.0.1", 0))
        self._mine = socket.create_connection(listener.getsockname())
        self._theirs, _ = listener.accept()
        listener.close()
        for end in (self._mine, self._theirs):  # else a message's last piece may wait for word of the one before
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()
        return self

    def send(self, message: bytes) -> None:
        """Return once the other end has it all."""
        self._mine.sendall(len(message).to_bytes(8, "little"))
        self._mine.sendall(message)
        self._mine.recv(1)

    def _receive(self) -> None:
        with self._theirs, self._theirs.makefile("rb") as stream:
            while head := stream.read(8):
                stream.read(int.from_bytes(head, "little"))
                self._theirs.sendall(b"k")

    def __exit__(self, *_: object) -> None:
        self._mine.shutdown(socket.SHUT_WR)
        self._thread.join()
        self._mine.close()


def main(words: Sequence[str]) -> None:
    """Do what the one argument says."""
    asked = json.loads(words[0])
    sent = [async_bytes(file, asked["rounds"]) for file in ASYNC]
    print(json.dumps({"sync": sync_bytes(asked["env"]), "async": sent}))


if __name__ == "__main__":
    main(sys.argv[1:])
