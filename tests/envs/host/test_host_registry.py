"""Host worlds by name: what is wrong is one line that says what to do."""

import importlib.util
import subprocess
import sys

import pytest
from engine_cli import assert_one_line_error, run

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.__main__ import describe
from jaxrl_engine.envs.host.protocol import HostVectorEnv
from jaxrl_engine.envs.host.registry import is_host_world, listing, make_host_env

FAMILIES = {
    "gymnasium:CartPole-v1": "gymnasium",
    "gymnasium:ALE/Pong-v5": "ale_py",
    "retro:Airstriker-Genesis": "stable_retro",
    "pettingzoo:mpe2/simple_spread-v3": "mpe2",
}


def test_which_worlds_are_host_worlds():
    assert all(map(is_host_world, FAMILIES))
    assert not any(map(is_host_world, ("reacher", "gymnax:CartPole-v1", "jaxmarl:SMAX", "retro_game")))


def test_asking_imports_nothing_heavy():
    code = (
        "import sys; from jaxrl_engine.envs.host.registry import is_host_world, listing; listing()\n"
        "assert is_host_world('retro:x')\n"
        "print(*sorted({'jax', 'gymnasium', 'ale_py', 'stable_retro', 'pettingzoo'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.returncode) == ([], 0), done.stderr


@pytest.mark.parametrize(("env_id", "module"), FAMILIES.items())
def test_every_family_keeps_the_contract(env_id, module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    copies = 2
    world = make_host_env(env_id, copies, {})
    try:
        spec = world.spec
        assert isinstance(world, HostVectorEnv) and world.num_envs == copies and spec.name == env_id
        first = world.reset(7)
        seen = (copies, spec.num_agents, *spec.observation.shape)
        assert first.observation.shape == seen and first.observation.dtype == spec.observation.dtype
        assert first.global_state.shape == (copies, *spec.global_state.shape)
        assert not first.reward.any() and not first.done.any()
        assert tuple(first.metrics) == spec.metric_names and not any(value.any() for value in first.metrics.values())
        again = world.reset(7)
        assert (again.observation == first.observation).all()
    finally:
        world.close()
        world.close()


@pytest.mark.parametrize(
    ("env_id", "module", "extra"),
    [
        ("gymnasium:ALE/Pong-v5", "ale_py", "atari"),
        ("retro:Airstriker-Genesis", "stable_retro", "retro"),
        ("pettingzoo:mpe2/simple_spread-v3", "pettingzoo", "pettingzoo"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(env_id, module, extra, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest))
    with pytest.raises(UserError) as told:
        make_host_env(env_id, 1, {})
    assert f'pip install "jaxrl-engine[{extra}]"' in str(told.value) and "\n" not in str(told.value)
    assert any(f'pip install "jaxrl-engine[{extra}]"' in line for line in listing())


@pytest.mark.parametrize(
    ("env_id", "params", "said"),
    [
        ("gymnasum:CartPole-v1", {}, "unknown host world 'gymnasum:CartPole-v1'; did you mean gymnasium?"),
        ("gymnasium:CartPol-v1", {}, "unknown world 'gymnasium:CartPol-v1'; did you mean CartPole-v1?"),
        (
            "gymnasium:CartPole-v1",
            {"proceses": 1},
            "no such parameter of gymnasium:CartPole-v1; did you mean processes?",
        ),
        ("gymnasium:CartPole-v1", {"processes": True}, "env_params.processes of .* must be a whole number, not True"),
        ("gymnasium:CartPole-v1", {"processes": -1}, "processes must be a whole number >= 0, not -1"),
        ("gymnasium:CartPole-v1", {"deadline": 0}, "deadline must be a number of seconds > 0, not 0.0"),
        ("gymnasium:Pendulum-v1", {"g": "heavy"}, "env_params.g of .* must be a finite number, not 'heavy'"),
        ("gymnasium:no_such_module_here:X-v0", {}, "needs something that is not installed: No module named"),
    ],
)
def test_mistakes_are_one_line(env_id, params, said):
    with pytest.raises(UserError, match=said) as told:
        make_host_env(env_id, 1, params)
    assert "\n" not in str(told.value)


def test_no_environments_are_a_mistake():
    with pytest.raises(UserError, match="num_envs must be a whole number >= 1, not 0"):
        make_host_env("gymnasium:CartPole-v1", 0, {})


def test_the_list_of_worlds_names_the_families_and_describes_a_host_world():
    assert [line.partition(": ")[0] for line in listing()] == [
        "gymnasium:<id>", "gymnasium:ALE/<Game>-v5", "retro:<Game>", "pettingzoo:<family>/<name>"
    ]  # fmt: skip
    assert "observation 4 float32; action 2 choices; at most 500 steps" in describe("gymnasium:CartPole-v1")
    assert_one_line_error(run("gymnasium:CartPol-v1", module="envs"), "did you mean CartPole-v1?")
