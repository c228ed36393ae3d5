"""The engine from Python: its own world, a failing run, and a policy to call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="module")
def api():
    import jaxrl_engine

    return jaxrl_engine


@pytest.fixture(scope="module")
def trained(api, tmp_path_factory):
    config = api.Config(env="probe:policy", num_envs=8, num_steps=8, total_steps=64 * 60)
    return api.train(config, run_dir=tmp_path_factory.mktemp("api") / "run", quiet=True)


def test_train_load_evaluate_call(api, trained):
    policy = api.load(trained.run_dir)
    assert api.evaluate(policy, episodes=50)["return"] == 1.0  # the best action everywhere, known by hand
    assert policy.evaluate(400, uniform=True)["return"] == pytest.approx(0.0, abs=0.2)
    env, params = api.make("probe:policy")
    _, seen = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(jax.random.key(0), 11), params)
    action, _ = policy(seen, policy.memory(11))
    np.testing.assert_array_equal(action[:, 0], np.asarray(seen.observation[:, 0, 0]) > 0)


def test_a_directory_that_is_no_run_is_refused(api, tmp_path):
    with pytest.raises(api.UserError, match="is not the directory of a run"):
        api.load(tmp_path)


def test_rewards_that_are_not_numbers_end_the_run_with_a_diagnostic_checkpoint(api, tmp_path):
    from jaxrl_engine.envs.probes import Constant

    class Poisoned(Constant):
        def _reward(self, state, action):
            return jnp.full((), jnp.nan)

    api.register("poisoned", Poisoned)
    config = api.Config(env="poisoned", num_envs=4, num_steps=4, total_steps=16 * 100, max_skipped_updates=3)
    result = api.train(config, run_dir=tmp_path / "run", quiet=True)
    assert result.summary["status"] == "failed"
    assert "3 updates in a row" in result.summary["message"]
    assert result.summary["updates"] == 3
    assert (tmp_path / "run" / "checkpoints" / "48").is_dir()
