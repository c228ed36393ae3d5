"""From a configuration to the evolution it describes."""

from jaxrl_engine.algos.protocol import Algorithm
from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.protocol import Embodied
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.modes.build import Build
from jaxrl_engine.modes.map_elites.evolution import Evolution
from jaxrl_engine.modes.map_elites.space import make_space
from jaxrl_engine.modes.sync import OnPolicy


def make_evolution(built: Build, *, split: bool = False) -> Evolution:
    """Make the trainer of the mode map-elites; `split`: its worlds lie on several devices.

    Raises:
        UserError: a descriptor that the world does not measure, or more first bodies than are evaluated at once.
    """
    config, qd, env = built.config, built.config.qd, built.env
    assert isinstance(env, Embodied) and isinstance(built.algorithm, Algorithm)  # `modes.build` admits no other
    try:
        space = make_space(qd, measures_energy="energy" in env.spec.metric_names)
    except ValueError as error:
        raise UserError(str(error)) from error
    rows = qd.num_offspring + (len(space.judged) if qd.refresh else 0)
    if qd.num_initial > rows:
        allowed = "the bodies evaluated in a generation, qd.num_offspring and, with qd.refresh, one per feasible cell"
        raise UserError(f"qd.num_initial must be at most {rows}, {allowed}, not {qd.num_initial}")
    bodies = VectorEnv(env, config.num_envs, params_axis=0, split=split)
    return Evolution(
        practice=OnPolicy(built.algorithm, bodies, None, config.num_steps), env=env, config=qd, space=space,
        warm_up=config.warm_up_generations, generations=config.num_updates,
    )  # fmt: skip
