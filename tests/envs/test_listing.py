"""The list of worlds."""

from engine_cli import assert_one_line_error, run

from jaxrl_engine.envs.__main__ import describe
from jaxrl_engine.envs.registry import native_envs


def test_every_native_world_is_described_by_its_own_specification():
    for env_id in native_envs():
        name, rules, facts = describe(env_id).splitlines()
        assert name == env_id and rules.strip().endswith(".") and "agent" in facts and "action" in facts


def test_the_facts_are_those_of_the_published_worlds():
    assert "2 agents; observation 11 uint8; action 5 choices; global state 100" in describe("alice_and_bob")
    assert "action 6561 choices (masked)" in describe("color_lines")
    assert "observation 4 float32; action 2 choices; at most 500 steps" in describe("gymnax:CartPole-v1")


def test_an_unknown_world_is_one_line():
    assert_one_line_error(run("reachr", module="envs"), "unknown world 'reachr'", "did you mean reacher?")
