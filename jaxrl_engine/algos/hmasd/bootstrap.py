"""What is seen in a rollout as the networks see it, and the values of what lies beyond its ends."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl_engine.algos.hmasd.intervals import marked_rows
from jaxrl_engine.algos.hmasd.networks import Networks
from jaxrl_engine.algos.hmasd.types import HMASDExtras, HMASDParams, HMASDStatistics
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, TimeStep, Trajectory
from jaxrl_engine.nets.skills import Coordinator
from jaxrl_engine.ops import running_stats


class Seen(Struct):
    """Global state and observations, standardised where the settings say so, flattened per agent."""

    state: Float[Leaf, "*batch D"]
    observation: Float[Leaf, "*batch A O"]

    @classmethod
    def of(cls, statistics: HMASDStatistics, state: Array, observation: Array, batch_ndim: int) -> "Seen":
        """From raw arrays `[*batch, *state]` and `[*batch, A, *observation]`."""
        state = _standardized(statistics.global_state, state)
        observation = _standardized(statistics.observation, observation)
        return cls(
            state=state.reshape(*state.shape[:batch_ndim], -1),
            observation=observation.reshape(*observation.shape[: batch_ndim + 1], -1),
        )

    @classmethod
    def at(cls, statistics: HMASDStatistics, timestep: TimeStep) -> "Seen":
        return cls.of(statistics, timestep.global_state, timestep.observation, 1)


class Beyond(Struct):
    """Values as the networks give them, of what follows the rollout and its truncated episodes."""

    last_low: Float[Leaf, "B"]  # of `Trajectory.last`, over the team skills the coordinator would choose there
    last_high: Float[Leaf, "B tokens"]
    final_low: Float[Leaf, "T B"]  # of the true final state; 0 except where asked for
    final_high: Float[Leaf, "T B tokens"]


def values_beyond(
    networks: Networks, params: HMASDParams, trajectory: Trajectory, seen: Seen, final: Seen, last: Seen,
    wanted: Bool[Array, "T B"],
) -> Beyond:  # fmt: skip
    """Values of the rollout's last observation, and of the true final ones of the steps asked for.

    Those are few and are worked on in blocks of `B`. An ended episode keeps its team skill there; after the rollout's
    end the coordinator chooses anew, so the discoverer's value is the mean over its choice:
    Σ_Z π_h(Z | s) V_l(s, Z).
    """
    steps, extras = trajectory.transitions, trajectory.transitions.extras
    num_steps, num_envs = wanted.shape
    learned = networks.config.high == "learned"
    flat = jax.tree.map(
        lambda leaf: leaf.reshape(num_steps * num_envs, *leaf.shape[2:]),
        (seen.state, final, steps.is_first, extras.skills[..., 0], extras.critic_memory),
    )

    def block(index: Array, weight: Array, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
        state, after, first, team, memory = jax.tree.map(lambda leaf: leaf[index], flat)
        low = _next_low(networks, params, memory, first, (state, after.state), team)
        place = jnp.where(weight > 0.0, index, num_steps * num_envs)
        low_values = so_far[0].at[place].set(low, mode="drop")
        if not learned:
            return low_values, so_far[1]
        high, _ = _encode(networks, params, after)
        return low_values, so_far[1].at[place].set(high, mode="drop")

    tokens = extras.skills.shape[-1]
    nothing = (jnp.zeros(num_steps * num_envs), jnp.zeros((num_steps * num_envs, tokens)))
    final_low, final_high = marked_rows(wanted, num_envs).fold(block, nothing)
    last_high, chances = _last(networks, params, last)
    row = jax.tree.map(lambda leaf: leaf[-1], (seen.state, steps.is_first, extras.critic_memory))
    each = [
        _next_low(networks, params, row[2], row[1], (row[0], last.state), jnp.full(num_envs, team))
        for team in range(networks.config.team_skills)
    ]
    return Beyond(
        last_low=(chances * jnp.stack(each, axis=1)).sum(axis=1), last_high=last_high,
        final_low=final_low.reshape(num_steps, num_envs), final_high=final_high.reshape(num_steps, num_envs, tokens),
    )  # fmt: skip


def following(extras: HMASDExtras, beyond: Beyond, ended: Bool[Array, "T B"]) -> Float[Array, "T B"]:
    """The discoverer's value of what really followed each step: of the next row, or of the true final state."""
    values = jnp.concatenate([extras.value[1:], beyond.last_low[None]])
    return jnp.where(ended, beyond.final_low, values)


def _last(networks: Networks, params: HMASDParams, last: Seen) -> tuple[Float[Array, "B tokens"], Float[Array, "B Z"]]:
    """The coordinator's values of what is seen last, and the probabilities of its next team skill."""
    num_envs, agents = last.observation.shape[:2]
    choices = networks.config.team_skills
    if networks.config.high == "uniform":
        return jnp.zeros((num_envs, agents + 1)), jnp.full((num_envs, choices), 1.0 / choices)
    unknown = jnp.zeros((num_envs, agents + 1), jnp.int32)  # Z comes first: no skill is read to choose it
    value, law = networks.coordinator.apply(params.coordinator, last.state, last.observation, unknown)
    return value, jax.nn.softmax(law.logits[:, 0, :choices])


def _encode(networks: Networks, params: HMASDParams, seen: Seen) -> tuple[Array, Array]:
    return networks.coordinator.apply(params.coordinator, seen.state, seen.observation, method=Coordinator.encode)


def _next_low(
    networks: Networks, params: HMASDParams, memory: Array, first: Array, states: tuple[Array, Array], team: Array
) -> Float[Array, "N"]:
    """V_l of the second state, with the memory that the first left behind."""
    is_first = jnp.stack([first, jnp.zeros_like(first)])
    _, values = networks.critic.apply(params.critic, memory, is_first, jnp.stack(states), jnp.stack([team, team]))
    return values[1]


def _standardized(statistics: running_stats.RunningStatistics | None, x: Array) -> Array:
    x = x.astype(jnp.float32)
    return x if statistics is None else running_stats.normalize(statistics, x)
