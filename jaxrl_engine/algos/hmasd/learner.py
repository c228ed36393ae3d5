"""HMASD: hierarchical multi-agent skill discovery (Yang et al. 2023, NeurIPS), strictly on-policy.

A coordinator chooses a team skill Z and individual skills z¹ … zᴬ for `skill_length` steps; a discoverer acts on them
at every step; discriminators try to recognise them from where they lead, and their success is the discoverer's reward.
The coordinator earns the sum of the team's reward over the interval its decision holds.

Strictly on-policy: the memory knows the policy version its skills were chosen under, and `act` chooses anew where that
is not the version it acts with. So every rollout begins with decisions, and none is learned from under later ones.

What the published code does at the ends of episodes, and what is done here:

    quirks="none" (default)                                    quirks="source"
    ---------------------------------------------------------  -----------------------------------------------------
    skills are chosen anew at the first step of an episode     one clock for the whole rollout: old skills go on after
                                                               a reset, and reward from there counts for them
    the end of an episode closes the interval, wherever it is  the coordinator sees an end only on the last step of an
                                                               interval
    discriminators judge the true final state                  they judge the first state of the next episode
    a time limit truncates: the final state's value follows    a time limit is terminal, at both levels

Common to both: intrinsic rewards are log q without −log p, hence never above 0, so that ending an episode pays
(`subtract_prior` takes that away); losses are means over skills and agents, not sums; the coordinator's discount is per
decision; memories at the start of training chunks are those of the rollout. Agents share the state and Z, hence one
value per environment where the published code computes it once per agent. After the rollout's end the discoverer's
value is the mean over the coordinator's next Z, not that of one draw.

Of the settings `ppo`, those without meaning here are `entropy_coefficient` (each level has its own),
`normalize_rewards` (values are standardised instead) and `accumulate_gradients`. `num_minibatches` divides the
discoverer's chunks; the coordinator's few decisions and the discriminators' samples are always one batch.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.algos.hmasd import coordinator, discoverer, discriminators, summary
from jaxrl_engine.algos.hmasd.bootstrap import Seen
from jaxrl_engine.algos.hmasd.coordinator import Decisions
from jaxrl_engine.algos.hmasd.discoverer import in_chunks
from jaxrl_engine.algos.hmasd.intervals import Rows, marked_rows
from jaxrl_engine.algos.hmasd.networks import Networks
from jaxrl_engine.algos.hmasd.optimizer import Fitted, Learner, Rule, make_learner
from jaxrl_engine.algos.hmasd.prepare import Prepared, prepare
from jaxrl_engine.algos.hmasd.types import (
    HMASDCarry,
    HMASDExtras,
    HMASDHyper,
    HMASDNoise,
    HMASDParams,
    HMASDStatistics,
)
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.checks import require
from jaxrl_engine.core.hmasd_config import HMASDConfig
from jaxrl_engine.core.types import Decision, EnvSpec, PyTree, TimeStep, TrainState, Trajectory
from jaxrl_engine.nets.heads import draw_noise, to_environment
from jaxrl_engine.nets.skills import Coordinator, choose_skills
from jaxrl_engine.ops import running_stats

GREEDY_STREAM = 0
"""Key of the skills of greedy play where chance is the coordinator: a uniform law has no mode."""


@dataclasses.dataclass(frozen=True)
class HMASD:
    """The algorithm as pure functions over static facts; see `algos.protocol.Algorithm`.

    Raises:
        ValueError: settings that do not fit the world or the length of rollouts.
    """

    spec: EnvSpec
    ppo: PPOConfig
    hmasd: HMASDConfig
    num_steps: int

    def __post_init__(self) -> None:
        config, steps = self.hmasd, self.num_steps
        require(config.skill_length <= steps, "hmasd.skill_length", f"at most num_steps = {steps}", config.skill_length)
        whole = config.quirks == "none" or steps % config.skill_length == 0
        require(
            whole, "hmasd.skill_length", f'a divisor of num_steps = {steps} with quirks "source"', config.skill_length
        )
        require(
            steps % config.chunk_length == 0, "hmasd.chunk_length", f"a divisor of num_steps = {steps}",
            config.chunk_length,
        )  # fmt: skip
        team = self.spec.num_agents > 1 or config.team_skills == 1
        require(team, "hmasd.team_skills", "1 in a world with one agent", config.team_skills)

    @property
    def networks(self) -> Networks:
        return Networks(self.spec, self.hmasd)

    def init(self, key: Key[Array, ""], hyper: HMASDHyper) -> TrainState:
        """Draw the parameters of one run. The key is consumed."""
        params = self.networks.init(key)
        learners = self._learners(params, None, hyper)
        scalar = running_stats.init
        ppo, spec = self.ppo, self.spec
        statistics = HMASDStatistics(
            observation=running_stats.init(spec.observation.shape) if ppo.normalize_observations else None,
            global_state=running_stats.init(spec.global_state.shape) if ppo.normalize_observations else None,
            high_value=scalar(()) if ppo.normalize_values else None,
            low_value=scalar(()) if ppo.normalize_values else None,
        )
        zero = jnp.zeros((), jnp.int32)
        optimizer = {name: learner.rule.transformation.init(learner.vector) for name, learner in learners.items()}
        return TrainState(
            params=params, optimizer=optimizer, statistics=statistics, hyper=hyper,
            policy_version=zero, skipped_updates=zero, skipped_in_a_row=zero,
        )  # fmt: skip

    def initial_carry(self, num_envs: int) -> HMASDCarry:
        agents, width = self.spec.num_agents, self.hmasd.width
        return HMASDCarry(
            skills=jnp.zeros((num_envs, agents + 1), jnp.int32), clock=jnp.zeros(num_envs, jnp.int32),
            version=jnp.full(num_envs, -1, jnp.int32), decisions=jnp.zeros(num_envs, jnp.int32),
            actor=jnp.zeros((num_envs, agents, width)), critic=jnp.zeros((num_envs, width)),
        )  # fmt: skip

    def noise(self, key: Key[Array, ""], num_envs: int) -> HMASDNoise:
        key_skills, key_action = jax.random.split(key)
        agents = self.spec.num_agents
        return HMASDNoise(
            skills=jax.random.uniform(key_skills, (num_envs, agents + 1)),
            action=draw_noise(key_action, self.spec.action, (num_envs, agents)),
        )

    def act(
        self, train_state: TrainState, carry: HMASDCarry, timestep: TimeStep, noise: HMASDNoise | None
    ) -> tuple[Decision, HMASDCarry]:
        """Choose skills where they are due, then actions; without noise the most likely of both.

        Skills are due at the first step of an episode, after `skill_length` steps, and under new parameters.
        """
        params: HMASDParams = train_state.params
        seen = Seen.at(train_state.statistics, timestep)
        version = jnp.broadcast_to(train_state.policy_version, carry.version.shape)
        due = (carry.version != version) | (carry.clock >= self.hmasd.skill_length)
        if self.hmasd.quirks == "none":
            due |= timestep.done
        skills, skill_log_prob, skill_value = self._choose(params, carry, seen, due, noise)
        first = timestep.done[None]
        mask = None if timestep.action_mask is None else timestep.action_mask[None]
        actor_memory, laws = self.networks.actor.apply(
            params.actor, carry.actor, first, seen.observation[None], skills[None, :, 1:], mask
        )
        law = jax.tree.map(lambda leaf: leaf[0], laws)
        critic_memory, value = self.networks.critic.apply(
            params.critic, carry.critic, first, seen.state[None], skills[None, :, 0]
        )
        raw = law.mode() if noise is None else law.sample_from(noise.action)
        carried = HMASDCarry(
            skills=skills, clock=jnp.where(due, 1, carry.clock + 1),
            version=jnp.where(due, version, carry.version), decisions=carry.decisions + due,
            actor=actor_memory, critic=critic_memory,
        )  # fmt: skip
        extras = HMASDExtras(
            decided=due, skills=skills, skill_log_prob=skill_log_prob, skill_value=skill_value,
            skill_version=carried.version, value=value[0], actor_memory=carry.actor, critic_memory=carry.critic,
        )  # fmt: skip
        decision = Decision(
            env_action=to_environment(self.spec.action, law, raw), action=raw, log_prob=law.log_prob(raw), extras=extras
        )
        return decision, carried

    def update(
        self, train_state: TrainState, trajectory: Trajectory, key: Key[Array, ""]
    ) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        """Learn from one rollout `[T, B]`: coordinator, discoverer, discriminators, in this order. Consumes the key.

        A loss or gradient that is not finite rejects the whole update: parameters, optimisers and statistics stay as
        they were, and the rejection is counted.
        """
        prepared = prepare(self.networks, self.ppo, train_state, trajectory)
        fitted = self._fit(train_state, prepared, key)
        learned = train_state.replace(
            params=HMASDParams(**{name: part.params for name, part in fitted.items()}),
            optimizer={name: part.optimizer for name, part in fitted.items()},
            statistics=self._observe(prepared.statistics, trajectory),
            policy_version=train_state.policy_version + 1,
        )
        finite = jnp.stack([part.finite for part in fitted.values()]).all()
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), learned, train_state)
        counted = kept.replace(
            skipped_updates=kept.skipped_updates + ~finite,
            skipped_in_a_row=jnp.where(finite, 0, kept.skipped_in_a_row + 1),
        )
        return counted, prepared.metrics | self._loss_metrics(fitted)

    # --- what acting is made of ---------------------------------------------------------------------------------

    def _choose(
        self, params: HMASDParams, carry: HMASDCarry, seen: Seen, due: Bool[Array, "B"], noise: HMASDNoise | None
    ) -> tuple[Int[Array, "B tokens"], Float[Array, "B tokens"], Float[Array, "B tokens"]]:
        """Skills in force from here, and where they were chosen now their log-probabilities and values."""
        if self.hmasd.high == "uniform":
            drawn, log_prob = self._draw_uniformly(carry, noise)
            return jnp.where(due[:, None], drawn, carry.skills), log_prob, jnp.zeros_like(log_prob)
        network = self.networks.coordinator

        def choose() -> tuple[Array, Array, Array]:
            value, encoded = network.apply(params.coordinator, seen.state, seen.observation, method=Coordinator.encode)
            chances = None if noise is None else jnp.asarray(noise.skills)
            drawn, log_prob = choose_skills(network, params.coordinator, encoded, chances)
            return jnp.where(due[:, None], drawn, carry.skills), log_prob, value

        nothing = jnp.zeros(carry.skills.shape)
        return jax.lax.cond(due.any(), choose, lambda: (jnp.asarray(carry.skills), nothing, nothing))

    def _draw_uniformly(
        self, carry: HMASDCarry, noise: HMASDNoise | None
    ) -> tuple[Int[Array, "B tokens"], Float[Array, "B tokens"]]:
        """Skills by chance; where play is greedy, by a chance that only the number of decisions so far determines."""
        count = jnp.asarray([self.hmasd.team_skills] + [self.hmasd.individual_skills] * self.spec.num_agents)
        if noise is None:
            keys = jax.random.split(jax.random.key(GREEDY_STREAM), len(carry.decisions))
            uniform = jax.vmap(lambda key, index: jax.random.uniform(jax.random.fold_in(key, index), count.shape))(
                keys, carry.decisions
            )
        else:
            uniform = jnp.asarray(noise.skills)
        drawn = jnp.floor(uniform * count[None]).astype(jnp.int32)
        return jnp.minimum(drawn, count[None] - 1), jnp.broadcast_to(-jnp.log(count)[None], drawn.shape)

    # --- what the update is made of -----------------------------------------------------------------------------

    def _fit(self, train_state: TrainState, prepared: Prepared, key: Key[Array, ""]) -> dict[str, Fitted]:
        """Train all networks; the result by the names of `HMASDParams`."""
        hyper, networks = train_state.hyper, self.networks
        learners = self._learners(train_state.params, train_state.optimizer, hyper)
        decisions, rows = self._decision_rows(prepared)
        if self.hmasd.high == "learned":
            high = coordinator.fit(networks.coordinator, self.ppo, hyper, learners["coordinator"], decisions, rows)
        else:
            high = learners["coordinator"].fitted({})
        samples = in_chunks(prepared.samples, self.hmasd.chunk_length)
        memory = jax.tree.map(lambda leaf: leaf[0], in_chunks(prepared.memory, self.hmasd.chunk_length))
        actor, critic = discoverer.fit(
            (networks.actor, networks.critic), self.ppo, hyper, (learners["actor"], learners["critic"]),
            samples, memory, key,
        )  # fmt: skip
        team, individual = discriminators.fit(
            (networks.team_discriminator, networks.individual_discriminator), self.hmasd,
            (learners["team_discriminator"], learners["individual_discriminator"]), prepared.outcomes,
        )  # fmt: skip
        return {
            "coordinator": high, "actor": actor, "critic": critic,
            "team_discriminator": team, "individual_discriminator": individual,
        }  # fmt: skip

    def _decision_rows(self, prepared: Prepared) -> tuple[Decisions, Rows]:
        """Decisions `[T · B, …]` and the rows that hold them, in blocks of the least there can be: one per interval."""
        num_steps, num_envs = prepared.decided.shape
        size = num_envs * -(-num_steps // self.hmasd.skill_length)
        flat = jax.tree.map(lambda leaf: leaf.reshape(num_steps * num_envs, *leaf.shape[2:]), prepared.decisions)
        return flat, marked_rows(prepared.decided, size)

    def _learners(
        self, params: HMASDParams, optimizer: dict[str, PyTree] | None, hyper: HMASDHyper
    ) -> dict[str, Learner]:
        """Every network with its optimiser, fresh where none is given."""
        low = self.ppo.num_epochs * self.ppo.num_minibatches
        passes = {"coordinator": self.ppo.num_epochs, "actor": low, "critic": low}
        learners = {}
        for field in dataclasses.fields(HMASDParams):
            name = field.name
            judges = name not in passes
            rule = Rule(
                rate=hyper.discriminator_learning_rate if judges else hyper.learning_rate,
                total=hyper.anneal_updates * passes.get(name, self.hmasd.discriminator_epochs),
                max_grad_norm=hyper.max_grad_norm, epsilon=self.ppo.adam_epsilon,
            )  # fmt: skip
            learners[name] = make_learner(getattr(params, name), optimizer and optimizer[name], rule)
        return learners

    def _observe(self, statistics: HMASDStatistics, trajectory: Trajectory) -> HMASDStatistics:
        """Take a rollout into the running statistics of what is seen, after it has been learned from."""
        steps = trajectory.transitions
        seen, state = statistics.observation, statistics.global_state
        if seen is None or state is None:
            return statistics
        return statistics.replace(
            observation=running_stats.update(seen, steps.observation),
            global_state=running_stats.update(state, steps.global_state),
        )

    def _loss_metrics(self, fitted: dict[str, Fitted]) -> summary.Metrics:
        metrics = summary.of_losses("Coordinator", fitted["coordinator"].metrics)
        metrics |= summary.of_losses("Discoverer", fitted["actor"].metrics | fitted["critic"].metrics)
        team, individual = (fitted[f"{kind}_discriminator"].metrics["Total"].mean() for kind in ("team", "individual"))
        return metrics | {
            "Losses/Discriminator/Team": team,
            "Losses/Discriminator/Individual": individual,
            "Losses/Discriminator/Total": team + individual,
        }
