"""The async learner with and without its replay, its priorities and its correction of stale data, on Color Lines.

python -m benchmarks.async_ablation                           every method that is not finished yet, then the report
python -m benchmarks.async_ablation --method whole uniform    some of them; interrupted, the same command goes on
python -m benchmarks.async_ablation --report-only             only draw and tabulate what has been trained
"""

from collections.abc import Sequence

from benchmarks.methods import Comparison, run
from benchmarks.studies import Reference, Study

CONFIG = "async_color_lines.yaml"
RANDOM_SCORE = 0.90
"""Mean score of the random player that the earlier system was measured against (200 games)."""
GOAL = 20 * RANDOM_SCORE
STEPS = "50000"
"""A twelfth of the configuration's, half way to the goal: who learns sooner?"""
NO_REPLAY = "--impact.replay none --impact.new-fraction 1 --impact.batch-size 1024"
"""As many new steps an update as the others, half the batch."""


def _study(name: str, title: str, *options: str) -> Study:
    references = (Reference("20 times the random player", GOAL),)
    return Study(name, title, CONFIG, 5, GOAL, references, "score", ("--total-steps", STEPS, *options), separate=True)


METHODS = {
    study.name: study
    for study in (
        _study("whole", "prioritised replay, corrected"),
        _study("uniform", "uniform replay, corrected", "--impact.replay", "uniform"),
        _study("uncorrected", "prioritised replay, not corrected", "--impact.no-correction"),
        _study("no_replay", "no replay, corrected", *NO_REPLAY.split()),
    )
}
COMPARISON = Comparison("async_ablation", "Color Lines, async", "score", METHODS, episodes=64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is unfinished, publish what is finished, and print the table."""
    run(COMPARISON, __doc__.split("\n")[0], arguments)


if __name__ == "__main__":
    main()
