"""The fused program: strictly on-policy, indifferent to chunks, runs and devices, and closed to the host."""

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.algos.ppo import PPO
from jaxrl_engine.algos.ppo_types import make_hyper
from jaxrl_engine.core.config import NetworkConfig, PPOConfig
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.fused import FusedProgram
from jaxrl_engine.modes.sync import OnPolicy
from jaxrl_engine.runtime.devices import CompileClock

CONFIG = PPOConfig(num_minibatches=2, num_epochs=2, normalize_rewards=True)


def make(world, num_envs=4, num_steps=6, num_runs=None, updates_per_row=1, **ppo) -> FusedProgram:
    network = NetworkConfig(hidden_sizes=(8,))
    algorithm = PPO(spec=world.spec, config=dataclasses.replace(CONFIG, **ppo), network=network)
    return FusedProgram(
        trainer=OnPolicy(algorithm, VectorEnv(world, num_envs), (), num_steps),
        updates_per_row=updates_per_row,
        max_skipped_updates=4,
        num_runs=num_runs,
    )


def begin(program, seed=0, learning_rate=3e-3):
    config = dataclasses.replace(CONFIG, learning_rate=learning_rate)
    return program.init(jax.random.key(seed), make_hyper(config, 1000))


def leaves(tree):
    return [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(tree)
    ]


def assert_same(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def rows_of(rows):
    rows = jax.device_get(rows)
    return {name: values[: int(rows.count)] for name, values in rows.values.items()}


@pytest.fixture
def compiled(walk):
    program = make(walk)
    state = begin(program)
    return program, state, program.compile(state)


def test_every_update_learns_from_exactly_1024_samples_of_one_policy_version(walk):
    program = make(walk, num_envs=32, num_steps=32)
    state = begin(program)
    chunk = program.compile(state)
    sizes, versions = [], []
    for _ in range(2):
        state, rows = chunk(state, np.int32(50))
        values = rows_of(rows)
        sizes.extend(values["Sync/BatchSize"]), versions.extend(values["Sync/PolicyVersion"])
    assert sizes == [1024.0] * 100
    assert versions == list(range(100))
    assert int(state.train_state.policy_version) == 100


def test_first_ratio_stays_one_over_many_updates(compiled):
    _, state, chunk = compiled
    _, rows = chunk(state, np.int32(30))
    values = rows_of(rows)
    assert values["Losses/FirstRatioError"].max() < 1e-5
    assert values["Losses/ApproxKL"].min() > 0


def test_chunks_do_not_change_the_result(compiled):
    program, state, chunk = compiled
    again = begin(program)
    straight, rows = chunk(state, np.int32(20))
    first, rows_a = chunk(again, np.int32(13))
    second, rows_b = chunk(first, np.int32(7))
    assert_same(straight, second)
    for name, values in rows_of(rows).items():
        np.testing.assert_array_equal(values, np.concatenate([rows_of(rows_a)[name], rows_of(rows_b)[name]]))


def test_rows_are_means_over_their_updates(walk, compiled):
    _, state, chunk = compiled
    _, fine = chunk(state, np.int32(10))
    coarse_program = make(walk, updates_per_row=5)
    state = begin(coarse_program)
    chunk = coarse_program.compile(state)
    state, first = chunk(state, np.int32(3))
    _, second = chunk(state, np.int32(7))
    assert int(first.count) == 0
    assert list(second.updates[:2]) == [5, 10]
    fine, coarse = rows_of(fine), rows_of(second)
    for name in ("Losses/Value", "Charts/Reward", "Sync/PolicyVersion"):
        np.testing.assert_allclose(coarse[name], fine[name].reshape(2, 5).mean(1), rtol=1e-5)
    weights = fine["Charts/Episodes"].reshape(2, 5)
    returns = np.where(weights > 0, fine["Charts/EpisodeReturn"].reshape(2, 5), 0.0)
    np.testing.assert_allclose(coarse["Charts/EpisodeReturn"], (returns * weights).sum(1) / weights.sum(1), rtol=1e-5)


def test_nothing_is_reported_where_nothing_was_observed(walk):
    program = make(walk, num_steps=2)  # no episode can end within the first two steps
    state = begin(program)
    values = rows_of(program.compile(state)(state, np.int32(1))[1])
    assert values["Charts/Episodes"][0] == 0
    assert np.isnan(values["Charts/EpisodeReturn"][0])


def test_runs_side_by_side_equal_runs_alone(walk):
    together = make(walk, num_runs=3)
    rates = (1e-3, 3e-3, 3e-3)
    hypers = [make_hyper(dataclasses.replace(CONFIG, learning_rate=rate), 1000) for rate in rates]
    keys = jnp.stack([jax.random.key(seed) for seed in (0, 0, 1)])
    state = together.init(keys, jax.tree.map(lambda *x: jnp.stack(x), *hypers))
    state, _ = together.compile(state)(state, np.int32(3))
    alone = make(walk)
    for index, (seed, rate) in enumerate(zip((0, 0, 1), rates, strict=True)):
        single = begin(alone, seed, rate)
        single, _ = alone.compile(single)(single, np.int32(3))
        for a, b in zip(leaves(state.train_state.params), leaves(single.train_state.params), strict=True):
            np.testing.assert_allclose(a[index], b, rtol=2e-3, atol=2e-5)
    kernels = jax.tree.leaves(state.train_state.params.actor)
    assert any(np.abs(np.asarray(kernel[0] - kernel[1])).max() > 1e-4 for kernel in kernels)
    assert any(np.abs(np.asarray(kernel[1] - kernel[2])).max() > 1e-2 for kernel in kernels)


def test_same_seed_same_run_other_seed_other_run(compiled):
    program, state, chunk = compiled
    first, _ = chunk(state, np.int32(5))
    again, _ = chunk(begin(program), np.int32(5))
    other, _ = chunk(begin(program, seed=1), np.int32(5))
    assert_same(first, again)
    assert np.abs(np.asarray(first.actor.vector.episode_return - other.actor.vector.episode_return)).max() > 0


def test_rewards_that_are_not_numbers_are_skipped_counted_and_stop_the_run(poisoned_walk):
    program = make(poisoned_walk, num_envs=32)
    state = begin(program)
    before = jax.device_get(leaves(state.train_state.params))
    state, rows = program.compile(state)(state, np.int32(50))
    assert int(rows.updates_done) == 4  # max_skipped_updates: some walker passes 1.2 in every rollout
    assert int(state.train_state.skipped_updates) == 4
    assert int(state.train_state.policy_version) == 0
    for a, b in zip(before, leaves(state.train_state.params), strict=True):
        np.testing.assert_array_equal(a, b)
    values = rows_of(rows)
    assert list(values["Sync/SkippedUpdates"]) == [1, 2, 3, 4]
    assert np.isnan(values["Losses/Total"]).all()  # no loss is reported for an update that did not happen


def test_no_compilation_and_no_transfer_after_the_first_chunk(compiled):
    _, state, chunk = compiled
    length = jax.device_put(np.int32(10))
    state, _ = chunk(state, length)
    with CompileClock() as clock, jax.transfer_guard("disallow"):
        for _ in range(5):
            state, rows = chunk(state, length)
        jax.block_until_ready(rows)
    assert clock.compilations == 0


def test_the_state_is_donated(compiled):
    _, state, chunk = compiled
    chunk(state, np.int32(1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.train_state.params))


def test_no_key_is_used_twice(walk):
    program = make(walk)
    with jax.debug_key_reuse(True):
        state = begin(program)
        program._learn(state.train_state, state.actor, state.key)


@pytest.mark.slow
def test_memory_does_not_grow_over_5000_updates(compiled):
    _, state, chunk = compiled
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("resident memory is read from /proc")

    def resident() -> float:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    for _ in range(10):
        state, rows = chunk(state, np.int32(50))
        jax.device_get(rows)
    before, arrays = resident(), len(jax.live_arrays())
    for _ in range(100):
        state, rows = chunk(state, np.int32(50))
        jax.device_get(rows)
    grown, alive = resident() - before, len(jax.live_arrays())
    assert grown <= 5.0
    assert alive <= arrays
    assert int(state.updates) == 5500
