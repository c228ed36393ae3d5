"""What `benchmarks.learning` trains, what must come out, and what others have reported."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Reference:
    """A return somebody else reached; `steps` are environment steps (None: not stated)."""

    label: str
    value: float
    steps: int | None = None
    deviation: float | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """One learning curve: a configuration, a number of seeds, and the least mean of a metric at its end."""

    name: str
    title: str
    config: str  # in configs/
    seeds: int
    threshold: float
    references: tuple[Reference, ...]
    metric: str = "return"  # of the evaluations
    options: tuple[str, ...] = ()  # of the engine's command line, laid over the configuration
    separate: bool = False  # a run for each seed: on a CPU large networks train faster so than batched over seeds


STUDIES = {
    study.name: study
    for study in (
        Study(
            "cartpole", "CartPole-v1", "cartpole.yaml", 10, 490.0,
            (
                Reference("SB3 PPO, RL-Zoo", 500.0, 100_000, 0.0),
                Reference("CleanRL ppo.py", 490.0, 500_000, 6.1),
                Reference("openai/baselines PPO", 497.5, 500_000, 4.0),
                Reference("PureJaxRL, lowest of 3 seeds", 464.0, 500_000),
            ),
        ),
        Study(
            "acrobot", "Acrobot-v1", "acrobot.yaml", 5, -90.0,
            (
                Reference("SB3 PPO, RL-Zoo", -73.5, 1_000_000),
                Reference("gymnax-blines PPO", -80.0),
                Reference("CleanRL ppo.py", -86.4, 500_000, 1.3),
            ),
        ),
        Study(
            "pendulum", "Pendulum-v1", "pendulum.yaml", 5, -200.0,
            (
                Reference("SB3 PPO, RL-Zoo", -172.0, 100_000, 104.0),
                Reference("gymnax-blines", -130.0),
            ),
        ),
        Study(
            "breakout", "Breakout-MinAtar", "minatar_breakout.yaml", 5, 28.0,
            (Reference("gymnax-blines PPO", 28.0),),
        ),
        Study(
            "reacher", "brax reacher, episode 50, generalized", "brax_reacher.yaml", 5, -5.5,
            (Reference("rejax PPO, tuned, 2 seeds", -4.85, 1_048_576),),
        ),
        Study(
            "reacher_mixed", "reacher, fresh bodies of 2-8 links", "reacher_mixed.yaml", 5, 0.9, (),
            metric="success_rate",
        ),
        Study(
            "color_lines", "Color Lines, one seed", "color_lines.yaml", 1, 4.5,
            (Reference("random play, 4,096 games", 0.52),), metric="score",
        ),
        Study(
            "color_lines_async", "Color Lines, async, one seed", "async_color_lines.yaml", 1, 18.0,
            (Reference("random play, 4,096 games", 0.52),), metric="score",
        ),
        Study(
            "map_elites", "Arms of 2-8 links, one policy, one seed", "map_elites_reacher.yaml", 1, 90.0,
            (Reference("every feasible cell, every target", 100.0),), metric="qd_score",
        ),
    )
}  # fmt: skip
