"""What a learning algorithm must offer. No threads, devices, files or clocks."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Key

from jaxrl_engine.core.types import Decision, PyTree, TimeStep, TrainState, Trajectory


@runtime_checkable
class Acting(Protocol):
    """What collecting and evaluating need: pure functions over a frozen configuration, all state in the arguments."""

    def init(self, key: Key[Array, ""], hyper: PyTree) -> TrainState:
        """Draw parameters; `hyper` holds the traced hyper-parameters this run uses."""

    def initial_carry(self, num_envs: int) -> PyTree:
        """Return the memory `[B, …]` the algorithm keeps for each environment between steps."""

    def noise(self, key: Key[Array, ""], num_envs: int) -> PyTree:
        """Draw all that one call of `act` leaves to chance. The key is consumed.

        A rollout draws the noise of all its steps at once: the generator is a loop of small kernels on a CPU, and a
        call of it per step would cost as much as the networks.
        """

    def act(
        self, train_state: TrainState, carry: PyTree, timestep: TimeStep, noise: PyTree | None
    ) -> tuple[Decision, PyTree]:
        """Choose the actions `[B, A, *action.shape]` the environments receive; without noise, the most likely ones.

        `timestep` shows the current observation (the first of a new episode where the last one ended) together with
        the reward and the flags of the step before; where those flags say done, the memory is cleared first.
        """


@runtime_checkable
class Algorithm(Acting, Protocol):
    """What also learns from its own rollouts, one after the other."""

    def update(
        self, train_state: TrainState, trajectory: Trajectory, key: Key[Array, ""]
    ) -> tuple[TrainState, dict[str, Array]]:
        """Learn from one rollout; returns the next state, with `policy_version` one higher, and scalar metrics."""
