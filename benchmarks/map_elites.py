"""What makes the map-elites mode work: the whole of it beside runs that lack a part, at equal environment steps.

python -m benchmarks.map_elites                          every method that is not finished yet, then the report
python -m benchmarks.map_elites --method whole frozen    some of them; interrupted, the same command goes on
python -m benchmarks.map_elites --report-only            only draw and tabulate what has been trained

The measure is the QD score on fresh targets under the final policy: elites' success rates, added up. `no_refresh` is
the rule of archives that never look back (QDax, pyribs): an elite stays until something claims a higher fitness.
"""

from collections.abc import Sequence

from benchmarks.methods import Comparison, run
from benchmarks.studies import Reference, Study

CONFIG = "map_elites_reacher.yaml"
SHORTER = ("--total-steps", "1024000", "--qd.updates-per-generation", "8")
"""A sixth of the configuration's steps in twenty generations: at its end all methods would be near the top."""
FEASIBLE = 100
"""Cells a body can be in: the most a QD score can be."""


def _study(name: str, title: str, *options: str) -> Study:
    references = (Reference("every feasible cell, every target", FEASIBLE),)
    return Study(name, title, CONFIG, 5, 0.9 * FEASIBLE, references, "qd_score", (*SHORTER, *options), separate=True)


METHODS = {
    study.name: study
    for study in (
        _study("whole", "the whole"),
        _study("random_bodies", "random bodies, no evolution", "--qd.immigrants", "1.0"),
        _study("frozen", "policy frozen after the warm-up", "--qd.no-learn-after-warm-up"),
        _study("no_refresh", "elites never evaluated again", "--qd.no-refresh"),
        _study("no_warm_up", "no warm-up", "--qd.warm-up", "0.0"),
    )
}
COMPARISON = Comparison("map_elites", "Arms of 2 to 8 links", "QD score", METHODS, episodes=256)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is unfinished, publish what is finished, and print the table."""
    run(COMPARISON, __doc__.split("\n")[0], arguments)


if __name__ == "__main__":
    main()
