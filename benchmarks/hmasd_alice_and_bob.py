"""HMASD, its ablations, MAT and MAPPO on Alice & Bob in one harness: success of greedy episodes, seed by seed.

python -m benchmarks.hmasd_alice_and_bob                      every method that is not finished yet, then the report
python -m benchmarks.hmasd_alice_and_bob --method hmasd mat   some of them; interrupted, the same command goes on
python -m benchmarks.hmasd_alice_and_bob --report-only        only draw and tabulate what has been trained
"""

from collections.abc import Sequence

from benchmarks.methods import Comparison, run
from benchmarks.studies import Reference, Study

EPISODES = 100


def _study(name: str, title: str, config: str, published: float | None, *options: str) -> Study:
    references = () if published is None else (Reference("Yang et al. 2023, mean of 5 seeds", published, 3_000_000),)
    return Study(name, title, config, 5, published or 0.0, references, "success_rate", options, separate=True)


_PARITY = "hmasd_alice_and_bob.yaml"
METHODS = {
    study.name: study
    for study in (
        _study("hmasd", "HMASD", _PARITY, 0.738),
        _study("mat", "MAT", "mat_alice_and_bob.yaml", 0.4),
        _study("mappo", "MAPPO", "mappo_alice_and_bob.yaml", 0.0),
        _study("hmasd_32x32", "HMASD, 32 × 32, k = 16", "hmasd_alice_and_bob_32x32.yaml", None),
        _study("no_team", "NoTeam", _PARITY, None, "--hmasd.team-skills", "1", "--hmasd.team-discriminator", "0"),
        _study(
            "no_indi", "NoIndi", _PARITY, None,
            "--hmasd.individual-skills", "1", "--hmasd.individual-discriminator", "0",
        ),
        _study("no_high", "NoHigh", _PARITY, None, "--hmasd.high", "uniform"),
        _study("no_exrew", "NoExRew", _PARITY, None, "--hmasd.extrinsic", "0"),
        _study(
            "no_inrew", "NoInRew", _PARITY, None,
            "--hmasd.team-discriminator", "0", "--hmasd.individual-discriminator", "0",
        ),
    )
}  # fmt: skip
SAME = {"no_exrew": "hmasd"}
"""On this task the published discoverer earns nothing from the world anyway (λ_e = 0), so NoExRew is HMASD itself."""
COMPARISON = Comparison(
    "hmasd_alice_and_bob", "Alice & Bob", "success", METHODS, EPISODES, bounds=(0.0, 1.0), same=SAME
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is unfinished, publish what is finished, and print the table."""
    run(COMPARISON, __doc__.split("\n")[0], arguments)


if __name__ == "__main__":
    main()
