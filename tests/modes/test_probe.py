"""The probe of a fused update's two halves."""

import jax
import numpy as np

from jaxrl_engine.algos.ppo import PPO
from jaxrl_engine.algos.ppo_types import make_hyper
from jaxrl_engine.core.config import NetworkConfig, PPOConfig
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.fused import FusedProgram
from jaxrl_engine.modes.probe import split_times
from jaxrl_engine.modes.sync import OnPolicy


def timed(world, num_epochs: int, num_runs: int | None = None) -> tuple[dict[str, float], bool]:
    """The probe's answer, and whether the state is as it was."""
    config = PPOConfig(num_epochs=num_epochs)
    algorithm = PPO(spec=world.spec, config=config, network=NetworkConfig(hidden_sizes=(64, 64)))
    trainer = OnPolicy(algorithm, VectorEnv(world, 16), (), 16)
    program = FusedProgram(trainer=trainer, updates_per_row=1, max_skipped_updates=4, num_runs=num_runs)
    hyper = make_hyper(config, 1000)
    keys = jax.random.key(0) if num_runs is None else jax.random.split(jax.random.key(0), num_runs)
    state = program.init(keys, hyper if num_runs is None else jax.tree.map(lambda x: np.stack([x] * num_runs), hyper))
    before = jax.device_get(state.train_state.params)
    times = split_times(program, state)
    same = jax.tree.all(jax.tree.map(np.array_equal, before, jax.device_get(state.train_state.params)))
    return times, same


def test_sixty_four_times_the_epochs_take_longer_to_learn_and_not_to_collect(walk):
    (few, same_few), (many, same_many) = timed(walk, 1), timed(walk, 64)
    assert same_few and same_many
    assert many["Sync/UpdateTime"] > 8 * few["Sync/UpdateTime"] > 0
    assert 0 < many["Sync/CollectionTime"] < 8 * few["Sync/CollectionTime"]


def test_several_runs_are_timed_together(walk):
    times, same = timed(walk, 1, num_runs=3)
    assert same and set(times) == {"Sync/CollectionTime", "Sync/UpdateTime"} and min(times.values()) > 0
