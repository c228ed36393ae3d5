"""The low level: chunks of the rollout for recurrent training, and the discoverer's policy and value losses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key

from jaxrl_engine.algos.hmasd.coordinator import value_error
from jaxrl_engine.algos.hmasd.optimizer import Fitted, Learner
from jaxrl_engine.algos.hmasd.types import HMASDHyper
from jaxrl_engine.algos.minibatches import Minibatch, Passes, scan_minibatches
from jaxrl_engine.core.algo_config import PPOConfig
from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf, PyTree
from jaxrl_engine.nets.skills import DiscovererActor, DiscovererCritic
from jaxrl_engine.ops import losses
from jaxrl_engine.ops.returns import gae


class LowSamples(Struct):
    """What the discoverer's loss needs of each step: `[T, B]`, then in chunks `[L, N]`."""

    observation: Float[Leaf, "*batch A O"]  # normalised, flattened
    state: Float[Leaf, "*batch D"]
    action_mask: Bool[Leaf, "*batch A n"] | None
    action: Leaf  # [*batch, A, *action.shape]
    log_prob: Float[Leaf, "*batch A"]
    skills: Int[Leaf, "*batch tokens"]
    value: Float[Leaf, "*batch"]  # as the network gave it
    advantage: Float[Leaf, "*batch A"]
    target: Float[Leaf, "*batch A"]  # in the network's units
    is_first: Bool[Leaf, "*batch"]


class LowMemory(Struct):
    """Memories of actor and critic: at every step of a rollout, or at the start of each chunk."""

    actor: Float[Leaf, "*batch A R"]
    critic: Float[Leaf, "*batch R"]


def advantages(
    hyper: HMASDHyper,
    reward: Float[Array, "T B A"],
    value: Float[Array, "T B"],
    next_value: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    done: Bool[Array, "T B"],
) -> tuple[Float[Array, "T B A"], Float[Array, "T B A"]]:
    """Generalised advantage estimation per agent; agents differ in reward and share the value."""
    of_agent = jax.vmap(gae, in_axes=(1, None, None, None, None, None, None), out_axes=1)
    of_env = jax.vmap(of_agent, in_axes=(1, 1, 1, 1, 1, None, None), out_axes=1)
    return of_env(reward, value, next_value, terminated, done, hyper.gamma, hyper.gae_lambda)


def in_chunks(tree: PyTree, length: int) -> PyTree:
    """Cut `[T, B, …]` into chunks of `length` steps, side by side: `[length, T / length · B, …]`."""

    def cut(leaf: Array) -> Array:
        steps, envs = leaf.shape[:2]
        chunks = jnp.swapaxes(leaf.reshape(steps // length, length, envs, *leaf.shape[2:]), 0, 1)
        return chunks.reshape(length, steps // length * envs, *leaf.shape[2:])

    return jax.tree.map(cut, tree)


def fit(
    networks: tuple[DiscovererActor, DiscovererCritic],
    config: PPOConfig,
    hyper: HMASDHyper,
    learners: tuple[Learner, Learner],
    samples: LowSamples,
    memory: LowMemory,
    key: Key[Array, ""],
) -> tuple[Fitted, Fitted]:
    """Pass over chunks `[L, N, …]` (memory `[N, …]`) `num_epochs` times. The key is consumed.

    Actor and critic have optimisers of their own. Memories at the start of chunks stay those of the rollout, as in the
    published code: an epoch's changes reach them only within a chunk.
    """

    def step(
        learners: tuple[Learner, Learner], batch: Minibatch
    ) -> tuple[tuple[Learner, Learner], dict[str, Float[Array, ""]]]:
        params = (learners[0].params(), learners[1].params())
        gradients, metrics = jax.grad(_loss, argnums=3, has_aux=True)(networks, config, hyper, params, batch)
        actor, critic = (ravel_pytree(part)[0] for part in gradients)
        norms = {"ActorGradientNorm": optax.tree.norm(actor), "CriticGradientNorm": optax.tree.norm(critic)}
        return (learners[0].step(actor), learners[1].step(critic)), metrics | norms

    learners, metrics = scan_epochs(step, learners, samples, memory, key, config)
    critic_names = {"Value", "CriticGradientNorm"}
    of_critic = {name: x for name, x in metrics.items() if name in critic_names}
    of_actor = {name: x for name, x in metrics.items() if name not in critic_names}
    return learners[0].fitted(of_actor), learners[1].fitted(of_critic)


def scan_epochs(
    step: Callable, learners: PyTree, samples: PyTree, memory: PyTree, key: Key[Array, ""], config: PPOConfig
) -> tuple[PyTree, dict[str, Array]]:
    """`scan_minibatches`, sparing it the shuffling where an epoch is a single batch. The key is consumed."""
    if config.num_minibatches > 1:
        passes = Passes(config.num_epochs, config.num_minibatches)
        return scan_minibatches(step, learners, samples, memory, key, passes)

    def epoch(learners: PyTree, key: Key[Array, ""]) -> tuple[PyTree, dict[str, Array]]:
        return step(learners, Minibatch(samples=samples, memory=memory, key=key))

    return jax.lax.scan(epoch, learners, jax.random.split(key, config.num_epochs))


def _loss(
    networks: tuple[DiscovererActor, DiscovererCritic],
    config: PPOConfig,
    hyper: HMASDHyper,
    params: tuple[PyTree, PyTree],
    batch: Minibatch,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """L = mean over steps and agents of ( surrogate − λ_l entropy + c_v value error ) (eqs. 7, 8)."""
    samples: LowSamples = batch.samples
    memory: LowMemory = batch.memory
    actor, critic = networks
    _, law = actor.apply(
        params[0], memory.actor, samples.is_first, samples.observation, samples.skills[..., 1:], samples.action_mask
    )
    _, value = critic.apply(params[1], memory.critic, samples.is_first, samples.state, samples.skills[..., 0])
    log_prob = law.log_prob(samples.action)
    policy = losses.clipped_surrogate(log_prob, samples.log_prob, samples.advantage, hyper.clip_epsilon).mean()
    entropy = law.entropy(batch.key).mean()
    shape = samples.target.shape
    value, old = (jnp.broadcast_to(each[..., None], shape) for each in (value, jnp.asarray(samples.value)))
    value_loss = value_error(config, hyper, value, old, samples.target).mean()
    log_ratio = jax.lax.stop_gradient(log_prob - samples.log_prob)
    total = policy - hyper.low_entropy * entropy + hyper.value_coefficient * value_loss
    return total, {
        "Total": total,
        "Policy": policy,
        "Value": value_loss,
        "Entropy": entropy,
        "ApproxKL": losses.approximate_kl(log_ratio).mean(),
        "ClipFraction": losses.clip_fraction(log_ratio, hyper.clip_epsilon).mean(),
        "RatioError": jnp.abs(jnp.exp(log_ratio) - 1.0).max(),
    }
