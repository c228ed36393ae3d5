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
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key

from jaxrl_engine.algos.minibatches import Minibatch, scan_minibatches
from jaxrl_engine.algos.ppo_types import PPOCarry, PPOExtras, PPOHyper, PPOParams, PPOStatistics, Samples
from jaxrl_engine.core.config import NetworkConfig, PPOConfig
from jaxrl_engine.core.types import Decision, EnvSpec, PyTree, TimeStep, TrainState, Trajectory
from jaxrl_engine.nets.actor_critic import Actor, Critic, clear_memory, initial_memory
from jaxrl_engine.nets.heads import draw_noise, to_environment
from jaxrl_engine.nets.unroll import unroll, unroll_with_next
from jaxrl_engine.ops import losses, running_stats
from jaxrl_engine.ops.distributions import Distribution
from jaxrl_engine.ops.returns import gae

MAX_SCALED_REWARD = 10.0
"""The first rare reward after many zeros meets a tiny deviation: scaled, it would drown everything else."""


@dataclasses.dataclass(frozen=True)
class PPO:
    """The algorithm as pure functions over static facts; see `algos.protocol.Algorithm`.

    All agents of a world share one actor and one critic, each seeing its own agent's observation.
    """

    spec: EnvSpec
    config: PPOConfig
    network: NetworkConfig

    @property
    def actor(self) -> Actor:
        return Actor(self.network, self.spec.observation.shape, self.spec.action)

    @property
    def critic(self) -> Critic:
        return Critic(self.network, self.spec.observation.shape)

    @property
    def recurrent(self) -> bool:
        return self.network.recurrent != "none"

    def init(self, key: Key[Array, ""], hyper: PPOHyper) -> TrainState:
        """Draw the parameters of one run. The key is consumed."""
        key_actor, key_critic = jax.random.split(key)
        agents = (self.spec.num_agents,)
        observation = jnp.zeros((*agents, *self.spec.observation.shape))
        memory = initial_memory(self.network, agents)
        params = PPOParams(
            actor=self.actor.init(key_actor, memory, observation, None),
            critic=self.critic.init(key_critic, memory, observation),
        )
        optimizer = self._optimizer(hyper).init(ravel_pytree(params)[0])
        statistics = PPOStatistics(
            observation=running_stats.init(self.spec.observation.shape) if self.config.normalize_observations else None,
            discounted_return=running_stats.init(()) if self.config.normalize_rewards else None,
        )
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            params=params, optimizer=optimizer, statistics=statistics, hyper=hyper,
            policy_version=zero, skipped_updates=zero, skipped_in_a_row=zero,
        )  # fmt: skip

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
        observation = self._normalize(train_state.statistics, timestep.observation)
        memory, distribution = self.actor.apply(
            params.actor, clear_memory(carry.actor, done), observation, timestep.action_mask
        )
        critic_memory = carry.critic
        if self.recurrent:
            critic_memory, _ = self.critic.apply(params.critic, clear_memory(carry.critic, done), observation)
        raw = distribution.mode() if noise is None else distribution.sample_from(noise)
        returned = carry.discounted_return
        if returned is not None:
            # `done` is that of the step which earned this reward: the sum starts afresh *after* it.
            returned = timestep.reward + train_state.hyper.gamma * returned
        decision = Decision(
            env_action=to_environment(self.spec.action, distribution, raw), action=raw,
            log_prob=distribution.log_prob(raw), extras=PPOExtras(discounted_return=returned),
        )  # fmt: skip
        kept = None if returned is None else jnp.where(done[:, None], 0.0, returned)
        return decision, PPOCarry(actor=memory, critic=critic_memory, discounted_return=kept)

    def update(
        self, train_state: TrainState, trajectory: Trajectory, key: Key[Array, ""]
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """Learn from one rollout `[T, B]`: `num_epochs × num_minibatches` gradient steps. The key is consumed.

        A loss or gradient that is not finite rejects the whole update: parameters, optimiser and statistics stay as
        they were, and the rejection is counted.
        """
        samples = self._samples(train_state, trajectory)
        optimizer = self._optimizer(train_state.hyper)
        # As one vector: a CPU spends more on starting a dozen small kernels per step than on their arithmetic.
        vector, to_params = ravel_pytree(train_state.params)

        def gradient_step(
            learner: tuple[Float[Array, "P"], PyTree], batch: Minibatch
        ) -> tuple[tuple[Float[Array, "P"], PyTree], dict[str, Float[Array, ""]]]:
            vector, opt_state = learner
            of_params, metrics = self._gradient(to_params(vector), train_state.hyper, batch)
            gradient = ravel_pytree(of_params)[0]
            changes, opt_state = optimizer.update(gradient, opt_state, vector)
            metrics["Losses/GradientNorm"] = optax.tree.norm(gradient)
            return (vector + changes, opt_state), metrics

        memory = (trajectory.initial_carry.actor, trajectory.initial_carry.critic) if self.recurrent else None
        (vector, opt_state), metrics = scan_minibatches(
            gradient_step, (vector, train_state.optimizer), samples, memory, key,
            num_epochs=self.config.num_epochs, num_minibatches=self.config.num_minibatches,
        )  # fmt: skip
        finite = jnp.isfinite(metrics["Losses/Total"]).all() & jnp.isfinite(metrics["Losses/GradientNorm"]).all()
        learned = train_state.replace(
            params=to_params(vector), optimizer=opt_state, policy_version=train_state.policy_version + 1,
            statistics=self._observe(train_state.statistics, trajectory),
        )  # fmt: skip
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), learned, train_state)
        summary = {name: values.mean() for name, values in metrics.items()}
        summary["Losses/FirstRatioError"] = metrics["Losses/RatioError"][0]
        del summary["Losses/RatioError"]
        summary["Losses/ExplainedVariance"] = losses.explained_variance(samples.value, samples.target)
        summary["Losses/LearningRate"] = self._learning_rate(train_state.hyper, self._steps_taken(train_state))
        return _count_skips(kept, finite), summary

    # --- what the update is made of -----------------------------------------------------------------------------

    def _samples(self, train_state: TrainState, trajectory: Trajectory) -> Samples:
        steps, hyper, statistics = trajectory.transitions, train_state.hyper, train_state.statistics
        observation = self._normalize(statistics, steps.observation)
        value, next_value = self._values(train_state, trajectory, observation)
        reward = steps.reward
        if statistics.discounted_return is not None:
            scaled = reward / running_stats.deviation(statistics.discounted_return)
            reward = jnp.clip(scaled, -MAX_SCALED_REWARD, MAX_SCALED_REWARD)
        over_streams = jax.vmap(jax.vmap(gae, in_axes=(1, 1, 1, None, None, None, None), out_axes=1),
                                in_axes=(1, 1, 1, 1, 1, None, None), out_axes=1)  # fmt: skip
        advantage, target = over_streams(
            reward, value, next_value, steps.terminated, steps.done, hyper.gamma, hyper.gae_lambda
        )
        return Samples(
            observation=observation, action_mask=steps.action_mask, action=steps.action, log_prob=steps.log_prob,
            advantage=advantage, target=target, value=value, is_first=steps.is_first if self.recurrent else None,
        )  # fmt: skip

    def _values(
        self, train_state: TrainState, trajectory: Trajectory, observation: Float[Array, "..."]
    ) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
        """Values of what was seen and of the true next observations, before learning starts."""
        steps, params = trajectory.transitions, train_state.params.critic
        if self.recurrent:
            final = self._normalize(train_state.statistics, steps.final_observation)
            memory = trajectory.initial_carry.critic
            return unroll_with_next(self.critic, params, memory, steps.is_first, observation, final)
        last = self._normalize(train_state.statistics, trajectory.last.observation)
        _, values = self.critic.apply(params, (), jnp.concatenate([observation, last[None]]))
        following = values[1:]

        def where_truncated() -> Float[Array, "T B A"]:
            final = self._normalize(train_state.statistics, steps.final_observation)
            return jnp.where(steps.truncated[..., None], self.critic.apply(params, (), final)[1], following)

        next_value = jax.lax.cond(steps.truncated.any(), where_truncated, lambda: following)
        return values[:-1], next_value

    def _gradient(
        self, params: PPOParams, hyper: PPOHyper, batch: Minibatch
    ) -> tuple[PPOParams, dict[str, Float[Array, ""]]]:
        """Gradient of the mean loss over a minibatch, in `accumulate_gradients` parts of equal size."""
        if self.config.normalize_advantages:
            advantage = losses.normalize_advantages(batch.samples.advantage)
            batch = batch.replace(samples=batch.samples.replace(advantage=advantage))
        gradient_of = jax.grad(self._loss, has_aux=True)
        parts = self.config.accumulate_gradients
        if parts == 1:
            return gradient_of(params, hyper, batch)
        summed = jax.lax.map(lambda part: gradient_of(params, hyper, part), batch.split(parts))
        return jax.tree.map(lambda leaf: leaf.mean(axis=0), summed)

    def _loss(
        self, params: PPOParams, hyper: PPOHyper, batch: Minibatch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """L = E[ policy surrogate + c_v value error − c_e entropy ] (paper, eq. 9, signs for descent)."""
        samples: Samples = batch.samples
        distribution, value = self._evaluate(params, batch)
        log_prob = distribution.log_prob(samples.action)
        surrogate = losses.clipped_surrogate(log_prob, samples.log_prob, samples.advantage, hyper.clip_epsilon)
        policy = surrogate.mean()
        if self.config.clip_value:
            errors = losses.clipped_value_loss(value, samples.value, samples.target, hyper.clip_epsilon)
        else:
            errors = losses.value_loss(value, samples.target)
        value_error, entropy = errors.mean(), distribution.entropy(batch.key).mean()
        total = policy + hyper.value_coefficient * value_error - hyper.entropy_coefficient * entropy
        log_ratio = jax.lax.stop_gradient(log_prob - samples.log_prob)
        return total, {
            "Losses/Total": total,
            "Losses/Policy": policy,
            "Losses/Value": value_error,
            "Losses/Entropy": entropy,
            "Losses/ApproxKL": losses.approximate_kl(log_ratio).mean(),
            "Losses/ClipFraction": losses.clip_fraction(log_ratio, hyper.clip_epsilon).mean(),
            "Losses/RatioError": jnp.abs(jnp.exp(log_ratio) - 1.0).max(),
        }

    def _evaluate(self, params: PPOParams, batch: Minibatch) -> tuple[Distribution, Float[Array, "..."]]:
        samples: Samples = batch.samples
        if not self.recurrent:
            _, distribution = self.actor.apply(params.actor, (), samples.observation, samples.action_mask)
            _, value = self.critic.apply(params.critic, (), samples.observation)
            return distribution, value
        actor_memory, critic_memory = batch.memory
        is_first = jnp.asarray(samples.is_first)
        inputs = (samples.observation, samples.action_mask)
        distribution = unroll(self.actor, params.actor, actor_memory, is_first, *inputs)
        return distribution, unroll(self.critic, params.critic, critic_memory, is_first, samples.observation)

    def _normalize(self, statistics: PPOStatistics, observation: Array) -> Float[Array, "..."]:
        observation = observation.astype(jnp.float32)
        if statistics.observation is None:
            return observation
        return running_stats.normalize(statistics.observation, observation)

    def _observe(self, statistics: PPOStatistics, trajectory: Trajectory) -> PPOStatistics:
        """Take a rollout into the running statistics, after it has been learned from."""
        steps = trajectory.transitions
        seen, returned = statistics.observation, statistics.discounted_return
        if seen is not None:
            seen = running_stats.update(seen, steps.observation.astype(jnp.float32))
        if returned is not None:
            returned = running_stats.update(returned, steps.extras.discounted_return)
        return PPOStatistics(observation=seen, discounted_return=returned)

    def _optimizer(self, hyper: PPOHyper) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(hyper.max_grad_norm),
            optax.adam(lambda count: self._learning_rate(hyper, count), eps=self.config.adam_epsilon),
        )

    def _learning_rate(self, hyper: PPOHyper, steps_taken: Array) -> Float[Array, ""]:
        total = hyper.anneal_updates * (self.config.num_epochs * self.config.num_minibatches)
        return hyper.learning_rate * jnp.maximum(1.0 - steps_taken / total, 0.0)

    def _steps_taken(self, train_state: TrainState) -> Array:
        return train_state.policy_version * (self.config.num_epochs * self.config.num_minibatches)


def _count_skips(train_state: TrainState, finite: Bool[Array, ""]) -> TrainState:
    return train_state.replace(
        skipped_updates=train_state.skipped_updates + ~finite,
        skipped_in_a_row=jnp.where(finite, 0, train_state.skipped_in_a_row + 1),
    )
