"""The multi-agent transformer (Wen et al. 2022, arXiv:2205.14953): PPO with a policy that decodes agent by agent.

The joint policy is Π π(aⁱ | o¹ … oᴬ, a¹ … aⁱ⁻¹); each factor has a probability ratio and, from the encoder, a value of
its own. Acting decodes one agent after the other; learning knows the actions and evaluates all factors in one pass.
All else (rollout, advantages, loss, gradient steps, statistics) is that of `algos.ppo`.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxrl_engine.algos.minibatches import Minibatch
from jaxrl_engine.algos.ppo_statistics import add_reward, init_statistics, normalize, observe
from jaxrl_engine.algos.ppo_types import PPOCarry, PPOExtras, PPOHyper, Samples
from jaxrl_engine.algos.ppo_update import begin, estimate, improve, keep_if_finite, ppo_loss, values_and_next
from jaxrl_engine.core.algo_config import MATConfig, PPOConfig
from jaxrl_engine.core.types import Decision, EnvSpec, PyTree, TimeStep, TrainState, Trajectory
from jaxrl_engine.nets.agents_transformer import AgentsTransformer, decide
from jaxrl_engine.nets.heads import draw_noise, to_environment


@dataclasses.dataclass(frozen=True)
class MAT:
    """The algorithm as pure functions over static facts; see `algos.protocol.Algorithm`."""

    spec: EnvSpec
    config: PPOConfig
    mat: MATConfig

    @property
    def network(self) -> AgentsTransformer:
        return AgentsTransformer(self.mat, self.spec.action)

    def init(self, key: Key[Array, ""], hyper: PPOHyper) -> TrainState:
        """Draw the parameters of one run. The key is consumed."""
        agents = (1, self.spec.num_agents)
        observation = jnp.zeros((*agents, *self.spec.observation.shape))
        action = jnp.zeros((*agents, *self.spec.action.shape), jnp.int32)
        params = self.network.init(key, observation, action, None)
        return begin(self.config, params, init_statistics(self.config, self.spec), hyper)

    def initial_carry(self, num_envs: int) -> PPOCarry:
        scaling = jnp.zeros((num_envs, self.spec.num_agents)) if self.config.normalize_rewards else None
        return PPOCarry(actor=(), critic=(), discounted_return=scaling)

    def noise(self, key: Key[Array, ""], num_envs: int) -> Float[Array, "..."]:
        return draw_noise(key, self.spec.action, (num_envs, self.spec.num_agents))

    def act(
        self, train_state: TrainState, carry: PPOCarry, timestep: TimeStep, noise: PyTree | None
    ) -> tuple[Decision, PPOCarry]:
        """Sample actions for `B` environments, or take the mode of each agent in turn where there is no noise."""
        observation = normalize(train_state.statistics.observation, timestep.observation)
        _, encoded = self.network.apply(train_state.params, observation, method=AgentsTransformer.encode)
        raw, log_prob = decide(self.network, train_state.params, encoded, timestep.action_mask, noise)
        returned, kept = add_reward(carry.discounted_return, timestep, train_state.hyper.gamma)
        decision = Decision(
            env_action=to_environment(self.spec.action, None, raw), action=raw, log_prob=log_prob,
            extras=PPOExtras(discounted_return=returned),
        )  # fmt: skip
        return decision, carry.replace(discounted_return=kept)

    def update(
        self, train_state: TrainState, trajectory: Trajectory, key: Key[Array, ""]
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """Learn from one rollout `[T, B]`, as `PPO.update` does. The key is consumed."""
        samples = self._samples(train_state, trajectory)
        learned, summary = improve(self._loss, self.config, train_state, samples, None, key)
        learned = learned.replace(statistics=observe(train_state.statistics, trajectory.transitions, samples.target))
        return keep_if_finite(learned, train_state, summary), summary

    def _samples(self, train_state: TrainState, trajectory: Trajectory) -> Samples:
        steps, statistics = trajectory.transitions, train_state.statistics
        observation = normalize(statistics.observation, steps.observation)

        def predict(seen: Float[Array, "..."]) -> Float[Array, "*batch A"]:
            teams = seen.reshape(-1, self.spec.num_agents, *self.spec.observation.shape)
            value, _ = self.network.apply(train_state.params, teams, method=AgentsTransformer.encode)
            return value.reshape(*seen.shape[: seen.ndim - teams.ndim + 1], -1)

        value, next_value = values_and_next(
            predict, observation, normalize(statistics.observation, trajectory.last.observation),
            lambda: normalize(statistics.observation, steps.final_observation), steps.truncated,
        )  # fmt: skip
        advantage, target = estimate(steps, value, next_value, statistics, train_state.hyper)
        return Samples(
            observation=observation, action_mask=steps.action_mask, action=steps.action, log_prob=steps.log_prob,
            advantage=advantage, target=target, value=value, is_first=None,
        )  # fmt: skip

    def _loss(
        self, params: PyTree, hyper: PPOHyper, batch: Minibatch
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        samples: Samples = batch.samples
        law, value = self.network.apply(params, samples.observation, samples.action, samples.action_mask)
        log_prob = law.log_prob(samples.action)
        return ppo_loss(self.config, hyper, samples, log_prob, law.entropy(batch.key), value)
