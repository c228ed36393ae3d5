"""The mailbox: the newest of every topic, made when read, whoever reads and however slowly."""

import functools
import json
import operator
import threading
import time

import pytest

from jaxrl_engine.live.mailbox import Mailbox


def said(news):
    return [(topic, json.loads(text)["n"]) for topic, text in news]


def test_a_reader_first_gets_the_newest_of_every_topic_in_the_order_of_writing():
    box = Mailbox()
    for topic, number in (("a", 1), ("b", 2), ("a", 3)):
        box.put(topic, lambda number=number: {"n": number})
    assert said(next(box.stream())) == [("b", 2), ("a", 3)]


def test_a_slow_reader_misses_what_is_old_and_a_quick_one_does_not():
    box = Mailbox()
    slow, quick = box.stream(), box.stream()
    box.put("a", lambda: {"n": 0})
    assert said(next(slow)) == said(next(quick)) == [("a", 0)]
    seen = []
    for number in range(1, 8):
        box.put("a", lambda number=number: {"n": number})
        seen += said(next(quick))
    assert seen == [("a", number) for number in range(1, 8)]
    assert said(next(slow)) == [("a", 7)]


def test_a_message_is_made_once_for_all_readers_and_not_at_all_for_none():
    box, made = Mailbox(), []

    def make(number):
        made.append(number)
        return {"n": number}

    for number in range(5):
        box.put("a", lambda number=number: make(number))
    assert made == []
    assert said(next(box.stream())) == said(next(box.stream())) == [("a", 4)]
    assert made == [4]


def test_readers_are_counted_while_they_read():
    box = Mailbox()
    box.put("a", lambda: {"n": 1})
    streams = [box.stream() for _ in range(3)]
    for stream in streams:
        next(stream)
    assert box.readers == 3
    streams[0].close()
    assert box.readers == 2
    del stream
    streams.clear()
    assert box.readers == 0


def test_closing_ends_every_stream_after_its_last_message():
    box, seen = Mailbox(), []
    box.put("a", lambda: {"n": 1})
    thread = threading.Thread(target=lambda: seen.extend(said(functools.reduce(operator.iadd, box.stream(), []))))
    thread.start()
    while not box.readers:
        time.sleep(0.01)
    box.put("a", lambda: {"n": 2})
    box.close(patience=5.0)
    thread.join(timeout=5.0)
    assert not thread.is_alive()
    assert seen[-1] == ("a", 2)


def test_closing_waits_no_longer_than_its_patience_for_a_reader_that_does_not_come_back():
    box = Mailbox()
    box.put("a", lambda: {"n": 1})
    stalled = box.stream()
    next(stalled)
    begun = time.monotonic()
    box.close(patience=0.2)
    assert 0.2 <= time.monotonic() - begun < 2.0
    assert box.readers == 1


def test_what_json_cannot_say_is_an_error_of_the_reader_not_of_the_writer():
    box = Mailbox()
    box.put("a", lambda: {"n": float("nan")})
    with pytest.raises(ValueError, match="Out of range"):
        next(box.stream())
