"""A compiled source of collectors in worlds outside JAX."""

import jax

from jaxrl_engine.modes.actor_learner.host_collector import HostSource
from jaxrl_engine.modes.build import build
from jaxrl_engine.runtime.config import parse


def compiled_source(options, num_envs, num_steps):
    """Return the source of a command line, for actors of so many worlds and steps, and parameters to act with."""
    built = build(parse(options.split()).config)
    behaviour = jax.jit(built.algorithm.init)(jax.random.key(0), built.hyper).replace(optimizer=None)
    made = HostSource(built.algorithm, built.env, num_envs, num_steps)
    made.compile(behaviour)
    return made, behaviour
