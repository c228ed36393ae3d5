"""The UAV worlds against an independent double-precision reference, published path losses, and layouts by hand."""

import dataclasses
import functools
import importlib.util
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl_engine.envs.uav.association import associate
from jaxrl_engine.envs.uav.backhaul import find_routes
from jaxrl_engine.envs.uav.channel import (
    aerial_losses,
    los_probability,
    los_shadow_db,
    path_loss,
    shannon_rate,
    signal_to_interference,
)  # fmt: skip
from jaxrl_engine.envs.uav.coverage import UavCoverage
from jaxrl_engine.envs.uav.relay import UavRelay
from jaxrl_engine.envs.uav.users import place_users

_spec = importlib.util.spec_from_file_location(
    "uav_reference", Path(__file__).resolve().parent.parent / "reference" / "uav.py"
)
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

COPIES, STEPS = 19, 109  # 2,071 steps of each of ten settings

SETTINGS = {
    "coverage, default": UavCoverage(),
    "coverage, urban, crowded, walking": UavCoverage(
        num_uavs=3, num_users=17, channel="urban", min_sinr_db=-7.0, capacity=2, placement="clusters", user_speed=3.0,
    ),
    "coverage, suburban, one user each": UavCoverage(
        num_uavs=7, num_users=13, channel="suburban", min_sinr_db=-10.0, capacity=1, placement="hotspot", side=2000.0,
    ),
    "coverage, 3gpp": UavCoverage(num_uavs=3, num_users=19, channel="3gpp", min_sinr_db=-3.0, height_weight=0.3),
    "coverage, 3gpp, fading, walking": UavCoverage(
        num_uavs=2, num_users=11, channel="3gpp", fading=True, user_speed=40.0, min_altitude=30.0, side=500.0,
    ),
    "relay, default": UavRelay(),
    "relay, three stations": UavRelay(num_uavs=7, num_users=17, num_stations=3, max_hops=2, channel="urban"),
    "relay, long chains": UavRelay(
        num_uavs=11, num_users=13, link_range=260.0, max_hops=9, min_sinr_db=-12.0, capacity=2, backhaul_mhz=2.0,
    ),
    "relay, 3gpp, fading, walking": UavRelay(
        num_uavs=5, num_users=7, channel="3gpp", fading=True, user_speed=2.0, link_range=450.0, rate_goal=9.0,
    ),
    "relay, one hop, one UAV": UavRelay(num_uavs=1, num_users=11, channel="suburban", max_hops=1, link_range=700.0),
}  # fmt: skip
SETTINGS = {name: dataclasses.replace(env, episode_length=STEPS) for name, env in SETTINGS.items()}


@functools.cache  # several tests look at the same play
def played(env, copies=COPIES, steps=STEPS, wild=True):
    """States before [T, B], actions, step keys, states and TimeSteps after, of random play in one scan."""

    def run(key):
        reset_key, key = jax.random.split(key)
        reset, step = jax.vmap(env.reset, in_axes=(0, None)), jax.vmap(env.step, in_axes=(0, 0, 0, None))
        state, _ = reset(jax.random.split(reset_key, copies), ())

        def one(state, key):
            step_key, action_key, hole_key = jax.random.split(key, 3)
            action = jax.random.uniform(action_key, (copies, env.num_uavs, 3), minval=-1.0)
            if wild:  # one component in twenty is NaN, infinite or merely too large
                oddity = jax.random.uniform(hole_key, action.shape)
                action = jnp.where(oddity < 0.05, 3.0 * action, action)
                action = jnp.where(oddity < 0.03, jnp.inf, action)
                action = jnp.where(oddity < 0.02, jnp.nan, action)
            keys = jax.random.split(step_key, copies)
            after, timestep = step(keys, state, action, ())
            return after, (state, action, keys, after, timestep)

        return jax.lax.scan(one, state, jax.random.split(key, steps))[1]

    return jax.jit(run)(jax.random.key(5))


def as_dict(state):
    double = {name: np.asarray(getattr(state, name), float) for name in ("positions", "users", "time")}
    fading = None if state.fading is None else (np.asarray(state.fading.los, float), np.asarray(state.fading.shadow))
    headings = None if state.headings is None else np.asarray(state.headings, float)
    return {**double, "headings": headings, "fading": fading}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_step_equals_the_reference(name):
    """Within single precision, and exactly in who serves whom, wherever rounding cannot decide."""
    env = SETTINGS[name]
    before, actions, keys, after, timesteps = played(env)
    config = dataclasses.asdict(env)
    turns = np.full((STEPS, COPIES), None)
    if env.user_speed:
        turns = np.asarray(jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (env.num_users,))))(keys))
    host = jax.device_get((before, actions, after, timesteps))
    skipped = 0
    for t in range(STEPS):
        for copy in range(COPIES):
            old, action, new, shown = jax.tree.map(lambda leaf, t=t, copy=copy: leaf[t, copy], host)
            expected = reference.step(config, as_dict(old), action, turns[t, copy])
            skipped += compare(env, old, new, shown, expected)
    assert skipped < 0.04 * STEPS * COPIES
    assert not host[3].terminated.any()
    assert host[3].truncated[-1].all() and not host[3].truncated[:-1].any()


def compare(env, old, new, shown, expected):
    """Assert that one step agrees; return whether its decisions were too close to call."""
    close = expected["margin_db"] < 1e-4 or expected["margin_m"] < 1e-3 or expected["margin_share"] < 1e-5
    np.testing.assert_allclose(new.positions, expected["positions"], atol=2e-4)  # m
    np.testing.assert_allclose(new.users, expected["users"], atol=2e-4 if expected["margin_m"] > 1e-3 else 1.0)
    assert new.invalid_actions - old.invalid_actions == expected["invalid"]
    assert new.time == old.time + 1
    jax.tree.map(np.testing.assert_array_equal, new.fading, old.fading)  # fixed for an episode
    if close:
        return True
    np.testing.assert_allclose(shown.observation, expected["observation"], atol=2e-6)
    np.testing.assert_allclose(shown.global_state, expected["global_state"], atol=2e-6)
    np.testing.assert_allclose(shown.reward, np.full(env.num_uavs, expected["reward"]), atol=2e-6)
    for metric, value in expected["metrics"].items():
        np.testing.assert_allclose(shown.metrics[metric], value, rtol=2e-5, atol=2e-6, err_msg=metric)
    mean = (old.served_share + expected["metrics"]["coverage"]) / new.time
    np.testing.assert_allclose(shown.metrics["mean_coverage"], mean, rtol=1e-5)
    assert shown.metrics["invalid_actions"] == new.invalid_actions
    return False


# --- radio by hand --------------------------------------------------------------------------------------------------


def loss_at(model, horizontal, altitude, user_height=1.5, carrier=2.0, fading=None):
    uav, user = jnp.array([[0.0, 0.0, altitude]]), jnp.array([[horizontal, 0.0]])
    return float(path_loss(model, uav, user, user_height, carrier, fading)[0, 0])


def test_free_space_loss_by_hand():
    # ITU-R P.525 in practical units: 32.4 + 20 log f/MHz + 20 log d/km; 92.4 dB at 1 km and 1 GHz.
    assert loss_at("free_space", 0.0, 1001.5, carrier=1.0) == pytest.approx(92.4, abs=0.06)
    assert loss_at("free_space", 300.0, 401.5, carrier=2.4) == pytest.approx(
        32.4478 + 20 * math.log10(2400) + 20 * math.log10(0.5), abs=1e-3
    )


def test_urban_loss_by_hand():
    assert loss_at("urban", 0.0, 1001.5) == pytest.approx(128.1, abs=1e-3)
    assert loss_at("urban", 60.0, 81.5) == pytest.approx(128.1 - 37.6, abs=1e-3)  # 100 m
    # TR 36.942 gives it as 40 (1 - 0.004 h) log R - 18 log h + 21 log f + 80, with h = 15 m above roofs, f = 2000 MHz.
    for kilometres in (0.1, 0.3, 0.7, 2.0):
        general = 40 * (1 - 0.004 * 15) * math.log10(kilometres) - 18 * math.log10(15) + 21 * math.log10(2000) + 80
        assert loss_at("urban", 0.0, 1000 * kilometres + 1.5) == pytest.approx(general, abs=0.1)


def test_suburban_loss_by_hand():
    assert loss_at("suburban", 800.0, 601.5) == pytest.approx(120.0, abs=1e-3)
    assert loss_at("suburban", 0.0, 101.5) == pytest.approx(85.0, abs=1e-3)


@pytest.mark.parametrize(
    ("horizontal", "chance", "total"),
    [(200, 1.0, 85.27), (500, 0.9446, 94.28), (1000, 0.8533, 102.53), (2000, 0.6967, 112.70), (4000, 0.4657, 125.54)],
)
def test_3gpp_loss_as_published(horizontal, chance, total):
    """UMa-AV at 100 m, the other end at 25 m, 2 GHz: a table computed elsewhere from TR 36.777, annex B."""
    found = los_probability(jnp.array(float(horizontal)), jnp.array(100.0))
    assert float(found) == pytest.approx(chance, abs=6e-5)
    assert loss_at("3gpp", float(horizontal), 100.0, user_height=25.0) == pytest.approx(total, abs=6e-3)


def test_3gpp_parts_by_hand():
    # h = 50 m: d1 = 460 · 1.69897 - 700 = 81.526, p1 = 4300 · 1.69897 - 3800 = 3505.57, d = 200 m:
    # 0.40763 + 0.59237 · exp(-0.057052) = 0.96715. h = 30 m: d1 = 18 at least.
    assert float(los_probability(jnp.array(200.0), jnp.array(50.0))) == pytest.approx(0.96715, abs=2e-5)
    assert float(los_probability(jnp.array(81.5), jnp.array(50.0))) == 1.0
    assert float(los_probability(jnp.array(18.0), jnp.array(30.0))) == 1.0
    assert float(los_probability(jnp.array(20.0), jnp.array(30.0))) < 1.0
    assert float(los_probability(jnp.array(4000.0), jnp.array(100.5))) == 1.0  # always, above 100 m
    # d = 200 m, 2 GHz: 28 + 22 · 2.30103 + 6.0206; -17.5 + (46 - 7 · 1.69897) · 2.30103 + 20 log10(83.776)
    los, nlos = aerial_losses(jnp.array(200.0), jnp.array(50.0), 2.0)
    assert float(los) == pytest.approx(84.643, abs=2e-3) and float(nlos) == pytest.approx(99.443, abs=2e-3)
    # 4.64 exp(-0.33) and 4.64 exp(-0.99)
    np.testing.assert_allclose(los_shadow_db(jnp.array([50.0, 150.0])), [3.3358, 1.7242], atol=2e-4)


def test_fading_has_the_distribution_of_the_tables():
    """At 50 m and 700 m: in line of sight with the table's probability, there and elsewhere with its shadowing."""
    env = UavCoverage(num_uavs=11, num_users=997, channel="3gpp", fading=True)
    fading = env.reset(jax.random.key(3), ())[0].fading
    loss = path_loss("3gpp", jnp.full((11, 3), 50.0), jnp.full((997, 2), 50.0 + 700 / math.sqrt(2)), 1.5, 2.4, fading)
    chance = 81.526 / 700 + math.exp(-700 / 3505.57) * (1 - 81.526 / 700)
    clear = np.asarray(fading.los) < chance
    assert scipy.stats.binomtest(int(clear.sum()), clear.size, chance).pvalue > 0.01
    space = math.hypot(700.0, 48.5)
    los = 28 + 22 * math.log10(space) + 20 * math.log10(2.4)
    nlos = -17.5 + (46 - 7 * math.log10(50)) * math.log10(space) + 20 * math.log10(40 * math.pi * 2.4 / 3)
    for where, mean, deviation in ((clear, los, 3.3358), (~clear, nlos, 6.0)):
        assert scipy.stats.kstest(np.asarray(loss)[where], "norm", (mean, deviation)).pvalue > 0.01


def test_interference_by_hand():
    # Alone, 20 - 80 + 104 = 44 dB. Two equal signals: just below 0 dB each. A signal 20 dB above two others: 17 dB.
    alone = signal_to_interference(jnp.array([[80.0]]), 20.0, -104.0)
    assert 10 * math.log10(alone[0, 0]) == pytest.approx(44.0, abs=1e-4)
    equal = signal_to_interference(jnp.array([[80.0], [80.0]]), 20.0, -104.0)
    assert (np.asarray(equal) < 1.0).all() and float(equal[0, 0]) == pytest.approx(1 / (1 + 10**-4.4), abs=1e-6)
    three = signal_to_interference(jnp.array([[60.0], [80.0], [80.0]]), 20.0, -170.0)
    np.testing.assert_allclose(10 * np.log10(three[:, 0]), [16.99, -20.04, -20.04], atol=0.01)
    # A signal 70 dB above the rest still has interference, not rounding.
    far = signal_to_interference(jnp.array([[50.0], [120.0]]), 20.0, -200.0)
    assert 10 * math.log10(far[0, 0]) == pytest.approx(70.0, abs=1e-3)
    assert float(shannon_rate(20.0, jnp.array(3.0))) == pytest.approx(40.0)


# --- association ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("uavs", "users", "capacity"), [(5, 53, 11), (3, 17, 2), (11, 13, 1), (2, 7, 7), (1, 3, 2)])
@pytest.mark.parametrize("values", [4, 1_000_000], ids=["many equal links", "all different"])
def test_association_is_strongest_link_first(uavs, users, capacity, values):
    random = np.random.default_rng(uavs)
    strength = random.integers(0, values, (101, uavs, users)).astype(np.float32)
    candidate = random.random((101, uavs, users)) < random.random((101, 1, 1))
    found = jax.jit(jax.vmap(lambda s, c: associate(s, c, capacity)))(strength, candidate)
    for case in range(101):
        np.testing.assert_array_equal(found[case], reference.greedy(strength[case], candidate[case], capacity))


def test_a_refused_user_displaces_a_weaker_one():
    # UAV 0 has room for one: user 0 (9) wins it, user 1 (8) goes to UAV 1 with 5, which sends user 2 (4) away.
    strength = jnp.array([[9.0, 8.0, 1.0], [2.0, 5.0, 4.0]])
    assert associate(strength, strength > 1.5, 1).tolist() == [0, 1, -1]
    assert associate(strength, strength > 1.5, 2).tolist() == [0, 0, 1]


# --- backhaul -------------------------------------------------------------------------------------------------------


def test_routes_by_hand():
    # UAV 0 reaches the ground; 1 and 2 reach 0; 3 reaches 1 (narrow) and 2; 4 reaches 3; 5 reaches nobody.
    air = np.zeros((6, 6), np.float32)
    for a, b, rate in ((0, 1, 30.0), (0, 2, 20.0), (1, 3, 6.0), (2, 3, 60.0), (3, 4, 50.0)):
        air[a, b] = air[b, a] = rate
    ground = jnp.array([[7.0, 40.0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]])
    routes = find_routes(jnp.asarray(air), ground, 4)
    assert routes.hops.tolist() == [1, 2, 2, 3, 4, 0]
    np.testing.assert_allclose(routes.rate, [40, 30 / 2, 20 / 2, 20 / 3, 20 / 4, 0])
    assert find_routes(jnp.asarray(air), ground, 3).hops.tolist() == [1, 2, 2, 3, 0, 0]
    assert find_routes(jnp.asarray(air), ground, 1).hops.tolist() == [1, 0, 0, 0, 0, 0]


def test_far_users_are_served_over_relays_only():
    env = UavRelay(num_uavs=3, num_users=3)
    step = jax.jit(env.step)
    start = jax.jit(env.reset)(jax.random.key(0), ())[0].replace(users=jnp.tile(jnp.array([[500.0, 900.0]]), (3, 1)))

    def relayed(places):
        state = start.replace(positions=jnp.array([[*place, 100.0] for place in places]))
        return step(jax.random.key(1), state, jnp.zeros((3, 3)), ())[1]

    chain = relayed([(500.0, 330.0), (500.0, 620.0), (500.0, 900.0)])
    assert chain.metrics["coverage"] == 1 and chain.metrics["connectivity"] == 1 and chain.metrics["mean_hops"] == 2
    broken = relayed([(500.0, 330.0), (100.0, 620.0), (500.0, 900.0)])
    assert broken.metrics["coverage"] == 0 and broken.metrics["connectivity"] == pytest.approx(1 / 3)
    near = relayed([(500.0, 330.0), (500.0, 330.0), (500.0, 330.0)])
    assert near.metrics["mean_hops"] == 1 and near.metrics["coverage"] == 0
    assert chain.reward[0] > broken.reward[0] and chain.reward[0] > near.reward[0]


def test_relaying_matters_under_random_play():
    _, _, _, states, timesteps = played(UavRelay(), copies=101, steps=101, wild=False)
    routes = jax.jit(jax.vmap(jax.vmap(UavRelay().routes)))(states)
    counts = np.bincount(np.asarray(routes.hops).ravel(), minlength=5) / routes.hops.size
    assert counts[1:].min() > 0.004 and counts[2:].sum() > 0.05 and counts[0] > 0.3  # all hop counts occur, and none
    connectivity = np.asarray(timesteps.metrics["connectivity"])
    assert set(np.unique(np.round(5 * connectivity))) == {0, 1, 2, 3, 4, 5}
    assert np.ptp(connectivity, axis=0).mean() > 0.2  # and it changes within an episode


def test_relaying_serves_users_that_one_hop_cannot():
    """Of many random layouts before the same users, the best with relays serves far more than the best without."""

    @jax.jit
    def best(key, positions):
        env = UavRelay()
        state, _ = env.reset(key, ())

        def coverage(place, max_hops):
            moved = state.replace(positions=place)
            hops = dataclasses.replace(env, max_hops=max_hops).routes(moved).hops
            return env.serve(moved, hops > 0).coverage

        return [jax.vmap(lambda place, h=h: coverage(place, h))(positions).max() for h in (1, 4)]

    low, high = jnp.array([0.0, 0.0, 50.0]), jnp.array([1000.0, 1000.0, 150.0])
    positions = low[None, None] + (high - low)[None, None] * jax.random.uniform(jax.random.key(1), (4001, 5, 3))
    for seed in range(3):
        one_hop, with_relays = best(jax.random.key(seed), positions)
        assert with_relays > one_hop + 0.08


# --- flight, users, actions -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    env = UavCoverage(num_uavs=3, num_users=7)
    return env, jax.jit(env.step)


def test_speed_and_altitude_limits_are_enforced(small):
    env, step = small
    state, _ = env.reset(jax.random.key(2), ())
    state = state.replace(positions=jnp.array([[500.0, 500.0, 100.0], [500.0, 500.0, 100.0], [990.0, 5.0, 55.0]]))
    full = jnp.array([[3.0, 3.0, 3.0], [0.6, 0.0, -0.8], [1.0, -1.0, -1.0]])
    after, _ = step(jax.random.key(0), state, full, ())
    moves = np.asarray(after.positions - state.positions)
    np.testing.assert_allclose(np.linalg.norm(moves[0]), 30.0, rtol=1e-5)  # not 90, nor 52
    np.testing.assert_allclose(moves[1], [18.0, 0.0, -24.0], rtol=1e-5)
    np.testing.assert_allclose(after.positions[2], [1000.0, 0.0, 50.0])  # walls hold
    before, _, _, states, _ = played(env, copies=101, steps=53)
    speeds = np.linalg.norm(np.asarray(states.positions - before.positions), axis=-1)
    assert speeds.max() < 30.0 + 1e-3
    low, high = np.asarray(states.positions).min((0, 1, 2)), np.asarray(states.positions).max((0, 1, 2))
    assert low[2] == 50.0 and high[2] == 150.0 and (low >= 0).all() and (high <= 1000.0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 1.5])
def test_actions_that_are_none_are_counted_and_go_no_further(small, value):
    env, step = small
    state, _ = env.reset(jax.random.key(2), ())
    tame = {np.nan: 0.0, -np.inf: -1.0}.get(value, 1.0)
    odd, timestep = step(jax.random.key(0), state, jnp.zeros((3, 3)).at[1, 0].set(value), ())
    even, shown = step(jax.random.key(0), state, jnp.zeros((3, 3)).at[1, 0].set(0.0 if np.isnan(value) else tame), ())
    assert timestep.metrics["invalid_actions"] == 1 and shown.metrics["invalid_actions"] == 0
    np.testing.assert_array_equal(odd.positions, even.positions)
    np.testing.assert_array_equal(timestep.observation, shown.observation)
    again, later = step(jax.random.key(0), odd, jnp.full((3, 3), value), ())
    assert later.metrics["invalid_actions"] == 10
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((again, later)))


def test_serving_one_more_never_lowers_the_reward():
    """The mean of quality is over all users: a weak link added to strong ones adds what it is worth."""
    env = UavCoverage(num_uavs=3, num_users=53)
    step = jax.jit(env.step)
    state, _ = env.reset(jax.random.key(2), ())
    state = state.replace(positions=jnp.array([[0.0, 0.0, 50.0], [1000.0, 1000.0, 50.0], [1000.0, 1000.0, 150.0]]))
    close, weak, lost = (10.0, 0.0), (400.0, 400.0), (505.0, 440.0)  # 26.1, 0.5 and -2.0 dB
    rewards = []
    for users in ([close] * 3 + [lost] * 50, [close] * 3 + [weak] + [lost] * 49):
        _, timestep = step(jax.random.key(0), state.replace(users=jnp.array(users)), jnp.zeros((3, 3)), ())
        rewards.append(float(timestep.reward[0]))
    # 26.0701 and 0.5455 dB of 30; altitudes 0, 0 and 1: a third of the height weight.
    assert rewards[0] == pytest.approx(0.7 * 3 / 53 + 0.3 * 3 * 26.0701 / 30 / 53 - 0.1 / 3, abs=1e-5)
    assert rewards[1] - rewards[0] == pytest.approx(0.7 / 53 + 0.3 * 0.5455 / 30 / 53, abs=1e-5)


def test_placements_have_their_distributions():
    uniform, clusters, hotspot = (
        np.asarray(place_users(jax.random.key(4), 4001, 1000.0, kind)) for kind in ("uniform", "clusters", "hotspot")
    )
    for axis in (0, 1):
        assert scipy.stats.kstest(uniform[:, axis] / 1000, "uniform").pvalue > 0.01
        assert scipy.stats.kstest(hotspot[2801:, axis] / 1000, "uniform").pvalue > 0.01
    radius = np.linalg.norm(hotspot[:2801] - 500, axis=1)
    assert scipy.stats.kstest((radius / (1000 / 3)) ** 2, "uniform").pvalue > 0.01
    inner = [clusters[c::5] for c in range(5) if 250 < np.median(clusters[c::5]) < 750]
    assert inner and all(cluster.min() >= 0 and cluster.max() <= 1000 for cluster in inner)
    deviations = [cluster[:, axis].std() for cluster in inner for axis in (0, 1)
                  if 300 < np.median(cluster[:, axis]) < 700]  # fmt: skip
    assert deviations and all(abs(deviation - 100) < 10 for deviation in deviations)


def test_episodes_start_uniform_in_the_box():
    env = UavCoverage(num_uavs=3, num_users=5, user_speed=1.0)
    states, shown = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(jax.random.split(jax.random.key(0), 1009), ())
    assert not shown.reward.any() and not any(values.any() for values in shown.metrics.values())
    for axis, (low, span) in enumerate(((0, 1000), (0, 1000), (50, 100))):
        shares = (np.asarray(states.positions)[..., axis].ravel() - low) / span
        assert scipy.stats.kstest(shares, "uniform").pvalue > 0.01
    assert scipy.stats.kstest(np.asarray(states.headings).ravel() / (2 * np.pi) + 0.5, "uniform").pvalue > 0.01


def test_walkers_walk_at_their_speed():
    env = UavCoverage(num_uavs=2, num_users=11, user_speed=1.5)
    before, _, _, after, _ = played(env, copies=3, steps=31)
    inside = (np.abs(np.asarray(before.users) - 500) < 495).all(axis=-1)
    lengths = np.linalg.norm(np.asarray(after.users - before.users), axis=-1)[inside]
    np.testing.assert_allclose(lengths, 1.5, atol=2e-4)


@pytest.mark.parametrize(
    ("world", "field", "value"),
    [
        (UavCoverage, "num_uavs", 0), (UavCoverage, "capacity", 0), (UavCoverage, "side", -1.0),
        (UavCoverage, "min_altitude", 1.0), (UavCoverage, "max_altitude", 50.0), (UavCoverage, "max_speed", -1.0),
        (UavCoverage, "user_speed", 2000.0), (UavCoverage, "fading", True), (UavCoverage, "height_weight", -0.1),
        (UavRelay, "max_hops", 0), (UavRelay, "link_range", 0.0), (UavRelay, "num_stations", 0),
    ],
)  # fmt: skip
def test_impossible_parameters_are_named(world, field, value):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        world(**{field: value})


def test_3gpp_asks_for_altitudes_it_holds_at():
    with pytest.raises(ValueError, match="altitude"):
        UavCoverage(channel="3gpp", min_altitude=20.0)
    with pytest.raises(ValueError, match="altitude"):
        UavRelay(channel="3gpp", max_altitude=400.0)


# --- the protocol ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coverage, urban, crowded, walking", "relay, 3gpp, fading, walking"])
def test_batch_equals_loop_jit_equals_no_jit_and_no_key_is_used_twice(name):
    env = SETTINGS[name]
    keys = jax.random.split(jax.random.key(6), 6)
    copies = jax.random.clone(keys)
    actions = jax.random.uniform(jax.random.key(7), (3, env.num_uavs, 3), minval=-1.0)
    with jax.debug_key_reuse(True):
        state, start = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(keys[:3], ())
        batched = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))(keys[3:], state, actions, ())
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, start, batched)))
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [leaf.dtype for leaf in jax.tree.leaves(batched[0])]
    own, own_start = env.reset(copies[1], ())
    single = env.step(copies[4], own, actions[1], ())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[1], rtol=2e-5, atol=2e-5), (own_start, *single), (start, *batched)
    )  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_spec_tells_the_truth(name):
    env = SETTINGS[name]
    _, _, _, _, timesteps = played(env)
    spec = env.spec
    assert timesteps.observation.shape[2:] == (spec.num_agents, *spec.observation.shape)
    assert timesteps.global_state.shape[2:] == spec.global_state.shape
    assert timesteps.reward.shape[2:] == (spec.num_agents,)
    assert set(timesteps.metrics) == set(spec.metric_names)
    for seen in (timesteps.observation, timesteps.global_state):
        assert np.abs(np.asarray(seen)).max() <= 1.0 + 1e-6
    for leaf in jax.tree.leaves(timesteps):
        assert np.isfinite(np.asarray(leaf, float)).all()
