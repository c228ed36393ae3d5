"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347): config, init, act, loss, update.

What matters beyond the paper (Andrychowicz et al. 2021; Huang et al. 2022, "The 37 implementation details"):

- running statistics are frozen during a rollout and the update that learns from it, so the probability ratio of the
  first minibatch is 1;
- a truncated step bootstraps from the value of its true final observation, a terminated one from nothing;
- values and advantages are computed once per rollout, in one batched pass of the critic (acting needs no values);
- advantages are normalised per minibatch; gradients are clipped by their global norm;
- the log-probability belongs to the raw sample, before clipping or squashing.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxrl_engine.algos.minibatches import Minibatch
from jaxrl_engine.algos.ppo_statistics import add_reward, init_statistics, normalize, observe
from jaxrl_engine.algos.ppo_types import PPOCarry, PPOExtras, PPOHyper, PPOParams, PPOStatistics, Samples
from jaxrl_engine.algos.ppo_update import begin, estimate, improve, keep_if_finite, ppo_loss, values_and_next
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.checks import require
from jaxrl_engine.core.config import NetworkConfig
from jaxrl_engine.core.types import Decision, EnvSpec, PyTree, TimeStep, TrainState, Trajectory
from jaxrl_engine.nets.actor_critic import Actor, CentralCritic, Critic, clear_memory, initial_memory
from jaxrl_engine.nets.heads import draw_noise, to_environment
from jaxrl_engine.nets.unroll import unroll, unroll_with_next
from jaxrl_engine.ops.distributions import Distribution


@dataclasses.dataclass(frozen=True)
class PPO:
    """The algorithm as pure functions over static facts; see `algos.protocol.Algorithm`.

    All agents of a world share one actor, each acting on its own observation, and one critic. Where that sees the
    global state, this is MAPPO (Yu et al. 2022, arXiv:2103.01955); where it sees each agent's observation, IPPO.

    Raises:
        ValueError: a network of bodies, whose flags and lengths are read as they are, with normalised observations or
            with a critic of the global state.
    """

    spec: EnvSpec
    config: PPOConfig
    network: NetworkConfig
    centralized: bool = False

    def __post_init__(self) -> None:
        if self.network.sees_bodies:
            allowed = f"false with network.torso {self.network.torso}"
            normalized = self.config.normalize_observations
            natural = f"{allowed}, which reads flags and lengths in their own units"
            require(not normalized, "ppo.normalize_observations", natural, normalized)
            require(not self.centralized, "mappo.centralized", allowed, self.centralized)

    @property
    def actor(self) -> Actor:
        return Actor(self.network, self.spec.observation.shape, self.spec.action, self.spec.tokens)

    @property
    def critic(self) -> Critic | CentralCritic:
        if self.centralized:
            return CentralCritic(self.network, self.spec.global_state.shape, self.spec.num_agents)
        return Critic(self.network, self.spec.observation.shape, self.spec.tokens)

    @property
    def recurrent(self) -> bool:
        return self.network.recurrent != "none"

    def init(self, key: Key[Array, ""], hyper: PPOHyper) -> TrainState:
        """Draw the parameters of one run. The key is consumed."""
        key_actor, key_critic = jax.random.split(key)
        agents = (self.spec.num_agents,)
        observation = jnp.zeros((*agents, *self.spec.observation.shape))
        memory = initial_memory(self.network, agents)
        seen = jnp.zeros(self.spec.global_state.shape) if self.centralized else observation
        params = PPOParams(
            actor=self.actor.init(key_actor, memory, observation, None),
            critic=self.critic.init(key_critic, memory, seen),
        )
        statistics = init_statistics(self.config, self.spec, centralized=self.centralized)
        return begin(self.config, params, statistics, hyper)

    def initial_carry(self, num_envs: int) -> PPOCarry:
        batch = (num_envs, self.spec.num_agents)
        memory = initial_memory(self.network, batch)
        scaling = jnp.zeros(batch) if self.config.normalize_rewards else None
        return PPOCarry(actor=memory, critic=memory, discounted_return=scaling)

    def noise(self, key: Key[Array, ""], num_envs: int) -> Float[Array, "..."]:
        return draw_noise(key, self.spec.action, (num_envs, self.spec.num_agents))

    def act(
        self, train_state: TrainState, carry: PPOCarry, timestep: TimeStep, noise: PyTree | None
    ) -> tuple[Decision, PPOCarry]:
        """Sample actions for `B` environments, or take the mode where there is no noise."""
        params: PPOParams = train_state.params
        done = timestep.done
        observation = normalize(train_state.statistics.observation, timestep.observation)
        memory, distribution = self.actor.apply(
            params.actor, clear_memory(carry.actor, done), observation, timestep.action_mask
        )
        critic_memory = carry.critic
        if self.recurrent:
            seen = self._critic_view(train_state.statistics, timestep.observation, timestep.global_state)
            critic_memory, _ = self.critic.apply(params.critic, clear_memory(carry.critic, done), seen)
        raw = distribution.mode() if noise is None else distribution.sample_from(noise)
        returned, kept = add_reward(carry.discounted_return, timestep, train_state.hyper.gamma)
        decision = Decision(
            env_action=to_environment(self.spec.action, distribution, raw), action=raw,
            log_prob=distribution.log_prob(raw), extras=PPOExtras(discounted_return=returned),
        )  # fmt: skip
        return decision, PPOCarry(actor=memory, critic=critic_memory, discounted_return=kept)

    def update(
        self, train_state: TrainState, trajectory: Trajectory, key: Key[Array, ""]
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """Learn from one rollout `[T, B]`: `num_epochs × num_minibatches` gradient steps. The key is consumed.

        A loss or gradient that is not finite rejects the whole update: parameters, optimiser and statistics stay as
        they were, and the rejection is counted.
        """
        samples = self._samples(train_state, trajectory)
        memory = (trajectory.initial_carry.actor, trajectory.initial_carry.critic) if self.recurrent else None
        learned, summary = improve(self._loss, self.config, train_state, samples, memory, key)
        learned = learned.replace(statistics=observe(train_state.statistics, trajectory.transitions, samples.target))
        return keep_if_finite(learned, train_state, summary), summary

    # --- what the update is made of -----------------------------------------------------------------------------

    def _samples(self, train_state: TrainState, trajectory: Trajectory) -> Samples:
        steps, statistics = trajectory.transitions, train_state.statistics
        observation = normalize(statistics.observation, steps.observation)
        state = normalize(statistics.global_state, steps.global_state) if self.centralized else None
        value, next_value = self._values(train_state, trajectory, observation if state is None else state)
        advantage, target = estimate(steps, value, next_value, statistics, train_state.hyper)
        return Samples(
            observation=observation, global_state=state, action_mask=steps.action_mask, action=steps.action,
            log_prob=steps.log_prob, advantage=advantage, target=target, value=value,
            is_first=steps.is_first if self.recurrent else None,
        )  # fmt: skip

    def _values(
        self, train_state: TrainState, trajectory: Trajectory, seen: Float[Array, "..."]
    ) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
        """What the critic predicts, before learning starts, of `seen` at each step and of the true next time steps."""
        steps, params, statistics = trajectory.transitions, train_state.params.critic, train_state.statistics

        def final() -> Float[Array, "..."]:
            return self._critic_view(statistics, steps.final_observation, steps.final_global_state)

        if self.recurrent:
            memory = trajectory.initial_carry.critic
            return unroll_with_next(self.critic, params, memory, steps.is_first, seen, final())
        last = self._critic_view(statistics, trajectory.last.observation, trajectory.last.global_state)
        return values_and_next(lambda seen: self.critic.apply(params, (), seen)[1], seen, last, final, steps.truncated)

    def _loss(
        self, params: PPOParams, hyper: PPOHyper, batch: Minibatch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        distribution, value = self._evaluate(params, batch)
        log_prob = distribution.log_prob(batch.samples.action)
        return ppo_loss(self.config, hyper, batch.samples, log_prob, distribution.entropy(batch.key), value)

    def _evaluate(self, params: PPOParams, batch: Minibatch) -> tuple[Distribution, Float[Array, "..."]]:
        samples: Samples = batch.samples
        seen = samples.observation if samples.global_state is None else samples.global_state
        if not self.recurrent:
            _, distribution = self.actor.apply(params.actor, (), samples.observation, samples.action_mask)
            _, value = self.critic.apply(params.critic, (), seen)
            return distribution, value
        actor_memory, critic_memory = batch.memory
        is_first = jnp.asarray(samples.is_first)
        inputs = (samples.observation, samples.action_mask)
        distribution = unroll(self.actor, params.actor, actor_memory, is_first, *inputs)
        return distribution, unroll(self.critic, params.critic, critic_memory, is_first, seen)

    def _critic_view(self, statistics: PPOStatistics, observation: Array, global_state: Array) -> Float[Array, "..."]:
        if self.centralized:
            return normalize(statistics.global_state, global_state)
        return normalize(statistics.observation, observation)
