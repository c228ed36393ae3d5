"""What every test runs under: the CPU, a compile cache of its own, strict shapes and reproducible examples.

Nothing here may import `jaxrl_engine` at the top: the hook that checks its annotations must be installed before.
"""

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

# Set before jax is imported, and through the environment, so that the programs the tests start share the cache.
CACHE_DIRECTORY = Path(__file__).resolve().parent.parent / ".cache" / "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE_DIRECTORY))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# XLA spends most of a test's time on fast code, for a program that runs once. Code made in a hurry is there five times
# as soon; `XLA_FLAGS= python -m pytest` tests what users run.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

# LAPACK's own threads spin for seconds over one small factorisation where a process per core runs tests already.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What `import jaxrl_engine` sets comes too late there: collecting the tests asks JAX for its devices.
runpy.run_path(str(Path(__file__).resolve().parent.parent / "jaxrl_engine" / "__init__.py"))

import hypothesis
import jax
import pytest

# An array that silently gains an axis is the commonest wrong shape; broadcasting across ranks must be spelled out.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Derandomised: a red test is red again tomorrow. No deadline: the first example of each shape compiles.
hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if any(device.platform == "gpu" for device in jax.devices()):
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_of_one_file() -> Iterator[None]:
    """Forget a file's programs at its end: each holds memory maps, and a process may have 65,530."""
    yield
    jax.clear_caches()


@pytest.fixture
def key() -> jax.Array:
    """A typed key; split it, never use it twice."""
    return jax.random.key(7)
