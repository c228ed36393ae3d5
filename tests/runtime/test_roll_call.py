"""The roll call: who comes, what they bring, and that all hear the same."""

import socket
import threading
import time

import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.places import Place, free_port, parse_place
from jaxrl_engine.runtime.roll_call import answer, call

FACTS = {"seed": "3", "gamma": "0.9", "code": "abc", "version": "1"}


@pytest.fixture
def address():
    return "127.0.0.1", free_port()


def hold(address, size, came, patience=5.0):
    """What each rank hears: nothing, or why it ends. `came` are rank, size and facts of the others."""
    heard = {}

    def attend(name, function, *arguments):
        try:
            function(*arguments)
            heard[name] = ""
        except UserError as error:
            heard[name] = str(error)

    attendants = [("first", call, address, size, FACTS, patience)]
    attendants += [(index, answer, address, *each, patience) for index, each in enumerate(came)]
    threads = [threading.Thread(target=attend, args=each) for each in attendants]
    for thread in reversed(threads):  # the others are there before rank 0 is
        thread.start()
    for thread in threads:
        thread.join(20)
    return heard


def test_all_who_agree_go_on(address):
    begun = time.monotonic()
    heard = hold(address, 4, [(rank, 4, FACTS) for rank in (1, 2, 3)])
    assert heard == {"first": "", 0: "", 1: "", 2: ""}
    assert time.monotonic() - begun < 4.0
    with socket.create_server(address):
        pass  # the address is free again, for JAX


@pytest.mark.parametrize(
    ("came", "words"),
    [
        ([(1, 3, FACTS), (2, 3, FACTS | {"seed": "4"})], "rank 2 was started otherwise than rank 0: seed is 4, on"),
        ([(1, 3, dict.fromkeys(FACTS, "x")), (2, 3, FACTS)], "code is x, on rank 0 abc; 1 more; every rank needs"),
        ([(1, 3, FACTS), (2, 4, FACTS)], "rank 2 was started for 4 processes, rank 0 for 3"),
    ],
)  # fmt: skip
def test_one_who_does_not_agree_ends_all_with_the_same_words(address, came, words):
    heard = hold(address, 3, came)
    assert len(set(heard.values())) == 1
    assert heard["first"].startswith("distributed: ") and words in heard["first"]


def test_two_of_one_number(address):
    heard = hold(address, 3, [(1, 3, FACTS), (1, 3, FACTS)])
    assert set(heard.values()) == {"distributed: two processes call themselves rank 1"}


def test_who_does_not_come_is_named_to_those_who_did(address):
    heard = hold(address, 4, [(2, 4, FACTS)], patience=0.7)
    where = "{}:{}".format(*address)
    expected = f"distributed: rank 1, 3 of 4 did not come within 0.7 s; start it with {where},RANK,4"
    assert heard == {"first": expected, 0: expected}


def test_nobody_calls(address):
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"nobody called rank 1 at 127.0.0.1:\d+ within 0.5 s; is rank 0 running"):
        answer(address, 1, 2, FACTS, 0.5)
    assert 0.4 < time.monotonic() - begun < 3.0


def test_strangers_are_not_counted(address):
    """Somebody else's connection, and what is not a rank's line, change nothing."""

    def disturb():
        for nonsense in (b"", b"GET / HTTP/1.1\r\n\r\n", b'{"rank": "one"}\n', b"[]\n"):
            with socket.create_connection(address, timeout=5) as stranger:
                stranger.sendall(nonsense)

    caller = threading.Thread(target=call, args=(address, 2, FACTS, 10.0))
    caller.start()
    time.sleep(0.2)
    disturb()
    answer(address, 1, 2, FACTS, 10.0)
    caller.join(10)
    assert not caller.is_alive()


def test_an_address_that_cannot_be_listened_at(address):
    with socket.create_server(address), pytest.raises(UserError, match=r"rank 0 cannot listen on .*a free port"):
        call(address, 2, FACTS, 1.0)
    with pytest.raises(UserError, match=r"rank 0 cannot listen on no\.such\.host\.invalid:7"):
        call(("no.such.host.invalid", 7), 2, FACTS, 1.0)


def test_places_are_read():
    assert parse_place("10.0.0.1:1234,1,2") == Place("10.0.0.1:1234", 1, 2)
    assert parse_place("[::1]:1234,0,2").address == ("::1", 1234)
    assert parse_place("node-1:80,0,1").address == ("node-1", 80)


@pytest.mark.parametrize(
    "text",
    ["", "host,0,2", ":1,0,2", "host:0,0,2", "host:70000,0,2", "host:1,0", "host:1,a,2", "host:1,0,2,3", "host:1,-1,2"],
)
def test_places_that_are_written_otherwise(text):
    with pytest.raises(ValueError, match="distributed must be auto, off or HOST:PORT,RANK,SIZE"):
        parse_place(text)


@pytest.mark.parametrize("text", ["host:1,2,2", "host:1,0,0"])
def test_ranks_beyond_the_size(text):
    with pytest.raises(ValueError, match="RANK must be from 0 to SIZE"):
        parse_place(text)
