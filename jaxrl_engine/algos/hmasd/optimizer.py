"""One network on its way through an update: its parameters as one vector, and Adam."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jaxrl_engine.core.struct import Struct, static_field
from jaxrl_engine.core.types import Leaf, PyTree

Gradient = Callable[[PyTree], tuple[Float[Array, "P"], dict[str, Array]]]


class Rule(Struct):
    """Adam after clipping by the global norm, its step size falling to zero over `total` steps (inf: never)."""

    rate: Float[Leaf, ""]
    total: Float[Leaf, ""]
    max_grad_norm: Float[Leaf, ""]
    epsilon: float = static_field()

    @property
    def transformation(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm),
            optax.adam(lambda count: self.rate * jnp.maximum(1.0 - count / self.total, 0.0), eps=self.epsilon),
        )


class Fitted(Struct):
    params: PyTree
    optimizer: PyTree
    metrics: dict[str, Float[Leaf, "steps"]]  # one entry per gradient step, in order

    @property
    def finite(self) -> Bool[Array, ""]:
        """No loss and no gradient was infinite or undefined. A ratio may be: the loss holds it within bounds."""
        watched = [jnp.isfinite(x).all() for name, x in self.metrics.items() if name != "RatioError"]
        return jnp.asarray(watched, bool).all()


class Learner(Struct):
    """Parameters and optimiser of one network. As one vector: a CPU spends more on many small kernels than on sums."""

    vector: Float[Leaf, "P"]
    optimizer: PyTree
    rule: Rule
    to_params: Callable[[Array], PyTree] = static_field()

    def params(self) -> PyTree:
        return self.to_params(self.vector)

    def step(self, gradient: Float[Array, "P"]) -> "Learner":
        """Follow one gradient downhill."""
        changes, optimizer = self.rule.transformation.update(gradient, self.optimizer, self.vector)
        return self.replace(vector=self.vector + changes, optimizer=optimizer)

    def descend(self, gradient: Gradient, steps: int) -> Fitted:
        """Follow the gradient of one and the same batch for a number of steps."""

        def one(learner: Learner, _: None) -> tuple[Learner, dict[str, Array]]:
            downhill, metrics = gradient(learner.params())
            return learner.step(downhill), metrics | {"GradientNorm": optax.tree.norm(downhill)}

        learner, metrics = jax.lax.scan(one, self, None, length=steps)
        return learner.fitted(metrics)

    def fitted(self, metrics: dict[str, Array]) -> Fitted:
        return Fitted(params=self.params(), optimizer=self.optimizer, metrics=metrics)


def make_learner(params: PyTree, optimizer: PyTree, rule: Rule) -> Learner:
    """Take up a network's parameters and the state its optimiser was left in."""
    vector, to_params = ravel_pytree(params)
    return Learner(vector=vector, optimizer=optimizer, rule=rule, to_params=to_params)
