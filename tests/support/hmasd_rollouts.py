"""Rollouts in a made-up world of random numbers, in which the algorithm itself chooses skills and actions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_engine.algos.hmasd.learner import HMASD
from jaxrl_engine.algos.hmasd.types import make_hyper
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.hmasd_config import HMASDConfig
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.types import EnvSpec, TimeStep, Trajectory, Transition

T, B, A, SEEN, STATE = 12, 5, 3, 7, 11
TEAM, OWN, K = 2, 3, 5


MOVES = Discrete(5)


def make(num_agents=A, num_steps=T, action=MOVES, ppo=None, **settings):
    spec = EnvSpec(
        name="made-up", num_agents=num_agents, observation=Box.uniform((SEEN,), -np.inf, np.inf),
        global_state=Box.uniform((STATE,), -np.inf, np.inf), action=action,
    )  # fmt: skip
    defaults = {"normalize_observations": False, "num_minibatches": 1, "num_epochs": 2, "normalize_values": True}
    hmasd = {"skill_length": K, "team_skills": TEAM, "individual_skills": OWN, "chunk_length": 3, "width": 8,
             "discriminator_epochs": 2}  # fmt: skip
    return HMASD(spec, PPOConfig(**(defaults | (ppo or {}))), HMASDConfig(**(hmasd | settings)), num_steps)


@functools.cache
def compiled(algorithm, name):
    """A method of the algorithm, compiled once for all tests that use it."""
    return jax.jit(getattr(algorithm, name), static_argnums=1 if name == "noise" else ())


def init(algorithm, key, changes=None):
    return compiled(algorithm, "init")(key, make_hyper(algorithm.ppo, algorithm.hmasd, 10, changes))


def timestep(observation, state, reward, terminated, truncated):
    return TimeStep(
        observation=observation, global_state=state, action_mask=None, reward=reward, terminated=terminated,
        truncated=truncated, metrics={},
    )  # fmt: skip


def collect(algorithm, state, key, terminated, truncated, carry=None):
    """A rollout `[T, B]` whose episodes end where the flags say; returns it and the memory it leaves."""
    carry = algorithm.initial_carry(terminated.shape[1]) if carry is None else carry
    return _collect(algorithm, state, key, terminated, truncated, carry)


@functools.partial(jax.jit, static_argnums=0)
def _collect(algorithm, state, key, terminated, truncated, carry):
    steps, envs = terminated.shape
    agents = algorithm.spec.num_agents
    keys = jax.random.split(key, 6)
    observation = jax.random.normal(keys[0], (steps + 1, envs, agents, SEEN))
    world = jax.random.normal(keys[1], (steps + 1, envs, STATE))
    done = terminated | truncated
    final_observation = jnp.where(
        done[..., None, None], jax.random.normal(keys[2], (steps, envs, agents, SEEN)), observation[1:]
    )
    final_world = jnp.where(done[..., None], jax.random.normal(keys[3], (steps, envs, STATE)), world[1:])
    team_reward = jax.random.normal(keys[4], (steps, envs, 1))
    reward = jnp.broadcast_to(team_reward, (steps, envs, agents))
    begin = jnp.zeros((1, envs), bool)
    flags = [jnp.concatenate([begin, flag]) for flag in (terminated, truncated)]
    rewards = jnp.concatenate([jnp.zeros((1, envs, agents)), reward])
    shown = jax.vmap(timestep)(observation, world, rewards, *flags)
    noise = jax.vmap(algorithm.noise, in_axes=(0, None))(jax.random.split(keys[5], steps), envs)

    def act(memory, xs):
        decision, memory = algorithm.act(state, memory, xs[0], xs[1])
        return memory, decision

    after, decided = jax.lax.scan(act, carry, (jax.tree.map(lambda leaf: leaf[:-1], shown), noise))
    transitions = Transition(
        observation=observation[:-1], global_state=world[:-1], action_mask=None, action=decided.action,
        log_prob=decided.log_prob, reward=reward, terminated=terminated, truncated=truncated,
        final_observation=final_observation, final_global_state=final_world,
        is_first=shown.done[:-1], policy_version=jnp.broadcast_to(state.policy_version, (steps, envs)),
        extras=decided.extras,
    )  # fmt: skip
    last = jax.tree.map(lambda leaf: leaf[-1], shown)
    return Trajectory(transitions=transitions, initial_carry=carry, last=last), after


def by_walking(reward, decided, value, last_value, end_value, done, gamma, gae_lambda):
    """Decisions' advantages and returns: cut the stream into intervals first; then go over them from the last."""
    intervals = []
    for start in np.flatnonzero(decided):
        stop = start
        while not done[stop] and stop + 1 < len(reward) and not decided[stop + 1]:
            stop += 1
        intervals.append((start, stop))
    advantage, earned, following = np.zeros(len(reward)), np.zeros(len(reward)), 0.0
    for start, stop in reversed(intervals):
        if done[stop]:
            bootstrap, following = end_value[stop], 0.0
        elif stop + 1 < len(reward):
            bootstrap = value[stop + 1]
        else:
            bootstrap = last_value
        earned[start] = reward[start : stop + 1].sum()
        delta = earned[start] + gamma * bootstrap - value[start]
        advantage[start] = following = delta + gamma * gae_lambda * following
    return advantage, earned


def flags(*places, shape=(T, B)):
    marked = np.zeros(shape, bool)
    for place in places:
        marked[place] = True
    return jnp.asarray(marked)


NEVER = flags()
TERMINATED = flags((1, 0), (5, 0), (11, 1), (6, 2), (7, 2))
TRUNCATED = flags((2, 1), (3, 3), (11, 4), (7, 4))
"""Ends early, together with the clock, on the rollout's last step, and twice in a row."""
