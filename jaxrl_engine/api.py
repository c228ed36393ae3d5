"""The engine from Python, in a few lines.

from jaxrl_engine import Config, evaluate, load, train

result = train(Config(env="gymnax:CartPole-v1", total_steps=200_000))
policy = load(result.run_dir)
print(evaluate(policy, episodes=100))
"""

from pathlib import Path
from typing import Any

from jaxrl_engine.core.config import Config, EnvValue
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.protocol import Environment
from jaxrl_engine.envs.registry import make_env, register
from jaxrl_engine.modes.policy import SavedPolicy, load_policy
from jaxrl_engine.modes.train import Result, train

__all__ = ["Config", "Result", "SavedPolicy", "UserError", "evaluate", "load", "make", "register", "train"]


def make(env_id: str, **env_params: EnvValue) -> tuple[Environment[Any, Any], Any]:
    """Make a world and its default parameters by id, e.g. `make("reacher", num_links=3)`.

    Raises:
        UserError: no such world or parameter.
    """
    return make_env(env_id, env_params)


def load(run_dir: str | Path, *, run: int | None = None, step: int | None = None) -> SavedPolicy:
    """Load the best policy of a run directory (see `modes.policy.load_policy`).

    Raises:
        UserError: not a run directory, no such checkpoint or run, or nothing readable.
    """
    return load_policy(Path(run_dir), run=run, step=step)


def evaluate(policy: SavedPolicy | str | Path, episodes: int = 128, *, seed: int = 0) -> dict[str, Any]:
    """Play fresh greedy episodes and return their means: `return`, `length` and what the world measures.

    Raises:
        UserError: a path that is not a run directory.
    """
    loaded = policy if isinstance(policy, SavedPolicy) else load(policy)
    return loaded.evaluate(episodes, seed=seed)
