"""One scan that lets an algorithm act in a vector of worlds: the same for every mode."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxrl_engine.algos.protocol import Acting
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Decision, PyTree, TrainState, Trajectory, Transition
from jaxrl_engine.envs.vector import Episodes, Fresh, VectorEnv, VectorState
from jaxrl_engine.modes.placement import everywhere, spread


class ActorState(Struct):
    """What goes on from one rollout to the next."""

    vector: VectorState  # [B]
    carry: PyTree  # [B, …] the algorithm's memory


def start(algorithm: Acting, vector_env: VectorEnv, key: Key[Array, ""], env_params: PyTree) -> ActorState:
    """Begin `B` episodes with an empty memory. The key is consumed."""
    return ActorState(vector=vector_env.reset(key, env_params), carry=algorithm.initial_carry(vector_env.num_envs))


def rollout(
    algorithm: Acting,
    vector_env: VectorEnv,
    train_state: TrainState,
    actor: ActorState,
    key: Key[Array, ""],
    env_params: PyTree,
    num_steps: int,
) -> tuple[ActorState, Trajectory, Episodes]:
    """Act for `T = num_steps` steps in all `B` environments under one set of parameters.

    Returns the actor state to go on from, the trajectory `[T, B]` and, `[T, B]`, the episodes that ended. The key is
    consumed.
    """
    key_fresh, key_act, key_step = jax.random.split(key, 3)
    noise = jax.vmap(algorithm.noise, in_axes=(0, None))(jax.random.split(key_act, num_steps), vector_env.num_envs)
    keys = jax.random.split(key_step, (num_steps, vector_env.num_envs))
    version = jnp.broadcast_to(train_state.policy_version, (vector_env.num_envs,))

    def step(
        loop: tuple[ActorState, Fresh], chance: tuple[PyTree, Key[Array, "B"]]
    ) -> tuple[tuple[ActorState, Fresh], tuple[Transition, Episodes]]:
        actor, fresh = loop
        seen = actor.vector.timestep
        decision, carry = algorithm.act(train_state, actor.carry, seen, chance[0])
        action = decision.env_action
        vector, fresh, after, episodes = vector_env.step(chance[1], actor.vector, action, env_params, fresh)
        transition = Transition(
            observation=seen.observation,
            global_state=seen.global_state,
            action_mask=seen.action_mask,
            action=decision.action,
            log_prob=decision.log_prob,
            reward=after.reward,
            terminated=after.terminated,
            truncated=after.truncated,
            final_observation=after.observation,
            final_global_state=after.global_state,
            is_first=actor.vector.is_first,
            policy_version=version,
            extras=decision.extras,
        )
        return (ActorState(vector=vector, carry=carry), fresh), (transition, episodes)

    fresh = spread(vector_env.fresh(key_fresh, env_params))
    if vector_env.shares_starts:  # fetched once, rather than at every step
        fresh = fresh.replace(env=everywhere(fresh.env), timestep=everywhere(fresh.timestep))
    loop = (actor, fresh)
    (after, _), (transitions, episodes) = jax.lax.scan(step, loop, (noise, keys))
    trajectory = Trajectory(transitions=transitions, initial_carry=actor.carry, last=after.vector.timestep)
    return after, trajectory, episodes


def first_decision(
    algorithm: Acting, train_state: TrainState, actor: ActorState, key: Key[Array, ""], num_steps: int, num_envs: int
) -> Decision:
    """Return what `rollout` decides at its first step under the same key, which is consumed alike."""
    key_act = jax.random.split(key, 3)[1]
    noise = algorithm.noise(jax.random.split(key_act, num_steps)[0], num_envs)
    return algorithm.act(train_state, actor.carry, actor.vector.timestep, noise)[0]
