"""The async learner with and without its replay, its priorities and its correction of stale data, on the reacher.

python -m benchmarks.async_ablation                           every method that is not finished yet, then the report
python -m benchmarks.async_ablation --method whole uniform    some of them; interrupted, the same command goes on
python -m benchmarks.async_ablation --report-only             only draw and tabulate what has been trained
"""

from collections.abc import Sequence

from benchmarks.methods import Comparison, run
from benchmarks.studies import Reference, Study

CONFIG = "async_reacher.yaml"
GOAL = 2.4
"""About the mean return of an arm that reaches every target."""
NO_REPLAY = "--impact.replay none --impact.new-fraction 1 --impact.batch-size 1024"
"""As many new steps an update as the others, half the batch."""


def _study(name: str, title: str, *options: str) -> Study:
    references = (Reference("every target reached", GOAL),)
    return Study(name, title, CONFIG, 5, GOAL, references, "return", options, separate=True)


METHODS = {
    study.name: study
    for study in (
        _study("whole", "prioritised replay, corrected"),
        _study("uniform", "uniform replay, corrected", "--impact.replay", "uniform"),
        _study("uncorrected", "prioritised replay, not corrected", "--impact.no-correction"),
        _study("no_replay", "no replay, corrected", *NO_REPLAY.split()),
    )
}
COMPARISON = Comparison("async_ablation", "Arms of two links, async", "return", METHODS, episodes=128)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is unfinished, publish what is finished, and print the table."""
    run(COMPARISON, __doc__.split("\n")[0], arguments)


if __name__ == "__main__":
    main()
