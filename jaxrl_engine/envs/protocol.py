"""What a world must offer: two pure functions, its default parameters and its static facts."""

from typing import Any, Protocol, TypeVar, runtime_checkable

from jaxtyping import Array, Bool, Float, Key

from jaxrl_engine.core.scene import Scene
from jaxrl_engine.core.types import EnvSpec, TimeStep

State = TypeVar("State")
Params = TypeVar("Params", contravariant=True)
Shown = TypeVar("Shown", contravariant=True)


@runtime_checkable
class Environment(Protocol[State, Params]):
    """One world, functional and never resetting itself; `envs.vector` batches it and resets it.

    Both functions are written for one environment and are `vmap`ped. `params` is a pytree and may be batched as well:
    a robot body is its world's parameters. Each key is consumed exactly once.
    """

    @property
    def spec(self) -> EnvSpec: ...

    def default_params(self) -> Any:
        """Return the parameters `reset` and `step` take when the user asks for nothing else."""

    def reset(self, key: Key[Array, ""], params: Params) -> tuple[State, TimeStep]:
        """Start an episode: reward 0, neither terminated nor truncated, every metric 0."""

    def step(self, key: Key[Array, ""], state: State, action: Array, params: Params) -> tuple[State, TimeStep]:
        """Advance one step under the joint action `[A, *action.shape]`; report the true next observation."""


@runtime_checkable
class Pictured(Protocol[Shown, Params]):
    """A world that can be drawn."""

    def scene(self, state: Shown, params: Params) -> Scene:
        """Return the picture of a state; its number of shapes is the world's, whatever the state."""


@runtime_checkable
class Jointed(Protocol[Shown]):
    """A world whose states MuJoCo can show. Its scene, if it has one, lies in the plane z = 0 of the model."""

    def joints(self, state: Shown) -> Float[Array, "q"]:
        """Return the generalised coordinates; those that the state's model lacks come last."""

    def mujoco_model(self, state: Shown) -> Any:
        """Return the `mujoco.MjModel` of a state that holds arrays, not tracers: the same for a whole episode."""


@runtime_checkable
class Embodied(Environment[State, Params], Protocol[State, Params]):
    """A world whose parameters are the body of a serial arm, of up to as many links as it has slots."""

    def embody(
        self,
        lengths: Float[Array, "links"],
        mask: Bool[Array, "links"],
        thickness: Float[Array, ""],
        gear: Float[Array, ""],
    ) -> Any:
        """Return the parameters for links of these lengths (m), so thick and so geared against the family's."""
