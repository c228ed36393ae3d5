"""The YAML 1.2 core schema by hand, and everything that is refused."""

import math
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.strict_yaml import MAX_BYTES, dump_mapping, parse_mapping, read_mapping, resolve_scalar

# Worked by hand from the tables of YAML 1.2.2 §10.3.2; the comments say what YAML 1.1 (PyYAML) makes of it.
CORE_SCHEMA = [
    ("1e-3", 0.001),  # a string
    (".5e3", 500.0),  # a string
    ("1E+2", 100.0),
    ("-.25", -0.25),
    ("+3.", 3.0),
    ("0.", 0.0),
    ("12", 12),
    ("-7", -7),
    ("+7", 7),
    ("017", 17),  # 15
    ("0o17", 15),  # a string
    ("0x1F", 31),
    ("0b11", "0b11"),  # 3
    ("1_000", "1_000"),  # 1000
    ("12:30", "12:30"),  # 750
    ("190:20:30", "190:20:30"),  # 685230
    ("2001-12-14", "2001-12-14"),  # a date
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("tRue", "tRue"),
    ("yes", "yes"),  # True
    ("no", "no"),  # False
    ("on", "on"),  # True
    ("off", "off"),  # False
    ("y", "y"),
    ("null", None),
    ("~", None),
    ("", None),
    ("nil", "nil"),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("inf", "inf"),
    ("nan", "nan"),
    (".", "."),
    ("e3", "e3"),
    ("1e", "1e"),
    ("1.2.3", "1.2.3"),
    ("٣", "٣"),  # a digit to Python's int(), not to YAML
    ("=", "="),
]


@pytest.mark.parametrize(("text", "expected"), CORE_SCHEMA)
def test_scalars_mean_what_yaml_1_2_says(text, expected):
    found = resolve_scalar(text)
    assert found == expected
    assert type(found) is type(expected)


def test_not_a_number_is_read_and_a_number_too_long_is_not():
    assert math.isnan(resolve_scalar(".NaN"))
    with pytest.raises(ValueError, match="64 digits"):
        resolve_scalar("9" * 65)


def test_document():
    text = "# comment\na: 1e-3\nb:\n  c: [1, 2.0, no]\n  'd': '12'\ne: |\n  true\nf: \"x\\ny\"\n"
    assert parse_mapping(text) == {"a": 0.001, "b": {"c": [1, 2.0, "no"], "d": "12"}, "e": "true\n", "f": "x\ny"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: duplicate key 'a'"),
        ("a: {b: 1, b: 2}\n", "line 1: duplicate key 'b'"),
        ("a: &x 1\nb: *x\n", "line 1: aliases and anchors are not allowed"),
        ("a: *x\n", "line 1: aliases and anchors are not allowed"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: tags are not allowed"),
        ("a: !!str 5\n", "line 1: tags are not allowed"),
        ("!!map {a: 1}\n", "line 1: tags are not allowed"),
        ("- 1\n- 2\n", "the top level must be a mapping"),
        ("just text\n", "the top level must be a mapping"),
        ("", "the top level must be a mapping"),
        ("# only a comment\n", "the top level must be a mapping"),
        ("a: 1\n---\nb: 2\n", "line 2: "),
        ("a: [1, 2\n", "line 2: "),
        ("a: b: c\n", "line 1: "),
        ("\ta: 1\n", "line 1: "),
        ("a: '\x00'\n", "special characters are not allowed"),
        ("[1, 2]: 3\n", "line 1: a key must be a name"),
        ("? {a: 1}\n: 3\n", "line 1: a key must be a name"),
        ("a: " + "9" * 5000 + "\n", "line 1: 999999999999... has more than 64 digits"),
        ("a: " + "[" * 40 + "]" * 40 + "\n", "nested deeper than 16 levels"),
        ("a: " + "[" * 100_000, "nested deeper than 16 levels"),
    ],
)
def test_refused(text, complaint):
    with pytest.raises(UserError) as caught:
        parse_mapping(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_merge_key_is_a_key_like_any_other():
    assert parse_mapping("<<: {a: 1}\n") == {"<<": {"a": 1}}


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    cases = {
        "absent.yaml": (None, "No such file"),
        "latin.yaml": ("name: é\n".encode("latin-1"), "is not UTF-8 text"),
        "large.yaml": (b"a: 1\n" + b"#" * MAX_BYTES, "is larger than 1,000,000 bytes"),
    }
    for name, (content, complaint) in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_mapping(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert complaint in str(caught.value)
    for odd in (tmp_path, Path("/dev/zero"), Path("bad\0name")):
        with pytest.raises(UserError):
            read_mapping(odd)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_mapping(path) == {"a": 1}


scalars = st.one_of(
    st.booleans(),
    st.integers(-(10**60), 10**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.sampled_from([text for text, _ in CORE_SCHEMA]),  # texts that look like something else
)


@hypothesis.settings(max_examples=100)
@hypothesis.given(
    st.dictionaries(st.text(st.characters(categories=["L"]), min_size=1, max_size=5), scalars, max_size=5)
)
def test_what_is_written_is_read_back(mapping):
    read = parse_mapping(dump_mapping(mapping))
    assert read == mapping
    assert [type(value) for value in read.values()] == [type(value) for value in mapping.values()]


def test_equal_tuples_are_written_twice_and_not_as_an_alias():
    shared = (64, 64)
    assert parse_mapping(dump_mapping({"a": shared, "b": shared})) == {"a": [64, 64], "b": [64, 64]}
