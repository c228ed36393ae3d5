"""One process's place among the several of a run, and how a command line writes it."""

import dataclasses
import socket


@dataclasses.dataclass(frozen=True)
class Place:
    """One process's place among those of a run."""

    coordinator: str  # HOST:PORT
    rank: int
    size: int
    local_devices: tuple[int, ...] | None = None  # those of this host that are this process's; None: all

    @property
    def address(self) -> tuple[str, int]:
        name, _, port = self.coordinator.rpartition(":")
        return name.strip("[]"), int(port)


def parse_place(text: str) -> Place:
    """Read `HOST:PORT,RANK,SIZE`.

    Raises:
        ValueError: it is written otherwise, or the rank is none of the size's.
    """
    coordinator, *numbers = text.split(",")
    name, _, port = coordinator.rpartition(":")
    written = name and port.isdecimal() and len(numbers) == 2 and all(number.isdecimal() for number in numbers)
    if not written or not 0 < int(port) < 65536:
        raise ValueError(f"distributed must be auto, off or HOST:PORT,RANK,SIZE, not {text!r}")
    rank, size = map(int, numbers)
    if not rank < size:
        raise ValueError(f"distributed: RANK must be from 0 to SIZE - 1 = {size - 1}, not {rank}")
    return Place(coordinator, rank, size)


def free_port() -> int:
    """Return a port of the loopback interface on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
