"""Names: every world is found, every mistake is one line that says what was meant."""

import subprocess
import sys

import jax
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs import registry
from jaxrl_engine.envs.probes import Constant, Memory
from jaxrl_engine.envs.protocol import Environment
from jaxrl_engine.envs.registry import available_envs, make_env, native_envs, register


@pytest.mark.parametrize(
    ("env_id", "meant"),
    [
        ("reachr", "did you mean reacher?"),
        ("CartPole-v1", "did you mean gymnax:CartPole-v1?"),
        ("gymnax:cartpole", "did you mean gymnax:CartPole-v1?"),
        ("brax:aant", "did you mean brax:ant?"),
        ("probe:constnt", "did you mean probe:constant?"),
        (
            "qqqqqq",
            "there are alice_and_bob, brax:<name>, color_lines, gymnax:<name>, jaxmarl:<name>, multi:<name>",
        ),
        ("brax:swimmer", "not offered: Brax's fluid forces"),
        ("gymnax:MNISTBandit-bsuite", "not offered: it downloads"),
    ],
)
def test_unknown_world(env_id, meant):
    with pytest.raises(UserError) as caught:
        make_env(env_id, {})
    message = str(caught.value)
    assert env_id in message and meant in message and "\n" not in message


@pytest.mark.parametrize(
    ("env_id", "env_params", "said"),
    [
        ("probe:memory", {"horizn": 3}, "env_params.horizn: no such parameter of probe:memory; did you mean horizon?"),
        ("probe:constant", {"horizon": 3}, "env_params.horizon: no such parameter of probe:constant; it has none"),
        ("probe:memory", {"horizon": 2.5}, "env_params.horizon of probe:memory must be a whole number, not 2.5"),
        ("probe:memory", {"horizon": True}, "env_params.horizon of probe:memory must be a whole number, not True"),
        ("probe:memory", {"horizon": "3"}, "env_params.horizon of probe:memory must be a whole number, not '3'"),
        ("probe:memory", {"horizon": 1}, "horizon must be a whole number >= 2, not 1"),
        ("reacher", {"num_links": 9}, "num_links must be a whole number from 1 to 8, not 9"),
        ("reacher", {"num_links": 1, "target": "disc"}, "ring where num_links is 1"),
        ("reacher", {"target": "rng"}, "env_params.target of reacher must be ring or disc, not 'rng'"),
        ("reacher", {"total_length": float("nan")}, "env_params.total_length of reacher must be a finite number"),
        ("reacher", {"physics": "spring"}, "physics of reacher must be auto or planar or brax or mjx, not 'spring'"),
        ("gymnax:CartPole-v1", {"gravty": 1}, "did you mean gravity?"),
        ("gymnax:CartPole-v1", {"gravity": "low"}, "env_params.gravity of gymnax:CartPole-v1 must be a finite number"),
        ("gymnax:CartPole-v1", {"max_steps_in_episode": 0}, "max_steps_in_episode must be >= 1, not 0"),
        ("gymnax:MetaMaze-misc", {"maze_size": 4}, "maze_size=4"),
        ("gymnax:Catch-bsuite", {"rows": 0}, "would hold nothing"),
        ("gymnax:FrozenLake-misc", {"map_name": "9x9"}, "map_name must be '4x4' or '8x8'"),
        ("gymnax:FrozenLake-misc", {"is_slippery": 1}, "is_slippery of gymnax:FrozenLake-misc must be true or false"),
        ("brax:fast", {"backend": "sprng"}, "backend must be one of generalized, spring, positional, mjx, not 'sprng'"),
        ("brax:fast", {"episode_length": 0}, "episode_length must be a whole number >= 1, not 0"),
        ("brax:fast", {"action_repeat": 0}, "action_repeat must be a whole number >= 1, not 0"),
    ],
)
def test_wrong_parameter(env_id, env_params, said):
    with pytest.raises(UserError) as caught:
        make_env(env_id, env_params)
    message = str(caught.value)
    assert said in message and "\n" not in message


def test_values_take_the_type_of_their_default():
    assert make_env("reacher", {"total_length": 2})[0].total_length == 2.0
    assert make_env("probe:memory", {"horizon": 3})[0].horizon == 3


def test_every_native_world_keeps_the_protocol():
    native = native_envs()
    assert len(native) == 17
    for env_id in native:
        env, params = make_env(env_id, {})
        assert isinstance(env, Environment) and env.spec.name == env_id
        assert jax.tree.structure(params) == jax.tree.structure(env.default_params())


def test_a_new_world_is_one_line(monkeypatch):
    monkeypatch.setattr(registry, "_worlds", dict(registry._worlds))
    register("mine", Memory)
    assert "mine" in available_envs()
    assert make_env("mine", {"horizon": 7})[0].horizon == 7
    with pytest.raises(UserError, match="did you mean horizon"):
        make_env("mine", {"horison": 7})
    with pytest.raises(UserError, match="an id that is not taken, not 'mine'"):
        register("mine", Constant)
    with pytest.raises(UserError, match="an id that is not taken, not 'brax:ant'"):
        register("brax:ant", Constant)

    def needs(size):
        return Constant()

    with pytest.raises(UserError, match="needs a default, but size has none"):
        register("other", needs)


def test_a_worlds_own_bug_is_not_blamed_on_the_user(monkeypatch):
    monkeypatch.setattr(registry, "_worlds", dict(registry._worlds))

    def broken(size: int = 3):
        raise ValueError("a bug")

    register("broken", broken)
    with pytest.raises(ValueError, match="a bug"):
        make_env("broken", {})
    with pytest.raises(UserError, match="a bug"):
        make_env("broken", {"size": 2})


def test_importing_the_registry_imports_no_world():
    program = (
        "import sys, jaxrl_engine.envs.registry as r; r.available_envs();"
        "print([m for m in ('gymnax', 'brax', 'mujoco', 'jaxrl_engine.envs.probes') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
