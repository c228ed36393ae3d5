"""Platform, devices and the compile cache; most of it in processes of its own, because JAX starts once."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.runtime.devices import (
    CompileClock,
    configure_platform,
    data_mesh,
    enable_compile_cache,
    environment_record,
    peak_memory_bytes,
)


def python(program: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**kept, **environment})


SPLIT = """
from jaxrl_engine.runtime.devices import configure_platform, data_mesh, environment_record
import json, jax
configure_platform("cpu", 3)
mesh = data_mesh(2)
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
array = jax.device_put(jax.numpy.arange(8), sharding)
print(json.dumps({"shape": dict(mesh.shape), "all": data_mesh(None).size, "pieces": len(array.addressable_shards),
                  "record": environment_record()}))
"""


def test_the_host_is_split_where_asked():
    result = python(SPLIT, XLA_FLAGS="--xla_cpu_enable_fast_min_max=false --xla_force_host_platform_device_count=5")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert (facts["shape"], facts["all"], facts["pieces"]) == ({"data": 2}, 3, 2)
    assert facts["record"]["device_count"] == 3
    flags = facts["record"]["xla_flags"].split()
    assert (flags[0], flags[-1]) == (
        "--xla_cpu_enable_fast_min_max=false",
        "--xla_force_host_platform_device_count=3",
    )
    assert sum("device_count" in flag for flag in flags) == 1


IMPOSSIBLE = """
from jaxrl_engine.runtime.devices import UserError, configure_platform
for platform in ("auto", "gpu"):
    try:
        configure_platform(platform, 1)
    except UserError as error:
        print(error)
"""


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_platforms_that_are_not_there_are_one_line():
    result = python(IMPOSSIBLE, JAX_PLATFORMS="abacus")
    assert (result.returncode, result.stderr) == (0, "")
    no_abacus, no_gpu = result.stdout.splitlines()
    assert no_abacus.startswith("platform auto: Unable to initialize backend 'abacus'")
    assert no_gpu.startswith("platform must be auto or cpu: JAX sees no GPU, only cpu")


def test_more_devices_than_there_are():
    available = jax.device_count()
    for call in (lambda: data_mesh(available + 1), lambda: configure_platform("auto", available + 1)):
        with pytest.raises(UserError, match=rf"devices must be at most {available}, .*, not {available + 1}"):
            call()


def test_choosing_what_already_runs_changes_nothing():
    configure_platform("auto", 1)
    assert data_mesh(1) is None  # programs need none then


def test_the_record_names_versions_and_devices():
    record = environment_record()
    assert record["jax"] == jax.__version__
    assert record["platform"] == jax.default_backend()
    assert {"python", "jaxlib", "flax", "optax", "brax", "gymnax", "xla_flags", "device_kind", "cpu_count"} <= set(
        record
    )
    json.dumps(record, allow_nan=False)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the accelerator's memory counts")
def test_peak_memory_is_what_the_kernel_saw():
    ballast = np.ones(3_000_000)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    assert peak_memory_bytes() == pytest.approx(1024 * int(lines["VmHWM"].split()[0]), rel=0.02)
    del ballast


# Compile cache


@pytest.fixture
def cache_settings(monkeypatch):
    """Put JAX's settings back, and begin with an environment that names no cache."""
    names = ("dir", "min_compile_time_secs", "min_entry_size_bytes")
    options = ["jax_compilation_cache_dir", *(f"jax_persistent_cache_{name}" for name in names[1:])]
    former = {option: getattr(jax.config, option) for option in options}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield monkeypatch
    for option, value in former.items():
        jax.config.update(option, value)


def test_the_cache_is_private(cache_settings, tmp_path):
    cache_settings.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    path = enable_compile_cache()
    assert path == tmp_path / "xdg" / "jaxrl_engine" / "jax"
    assert path.stat().st_mode & 0o777 == 0o700
    assert jax.config.jax_compilation_cache_dir == str(path)
    assert enable_compile_cache() == path  # again


def test_the_cache_is_at_home_by_default(cache_settings, tmp_path):
    cache_settings.delenv("XDG_CACHE_HOME", raising=False)
    cache_settings.setenv("HOME", str(tmp_path))
    assert enable_compile_cache() == tmp_path / ".cache" / "jaxrl_engine" / "jax"


def refused(caplog) -> str:
    with caplog.at_level(logging.WARNING):
        assert enable_compile_cache() is None
    assert jax.config.jax_compilation_cache_dir is None
    [message] = caplog.messages
    return message


def test_a_cache_that_others_can_write_is_refused(cache_settings, tmp_path, caplog):
    tmp_path.chmod(0o777)
    cache_settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert refused(caplog) == f"no compile cache: {tmp_path} can be written by other users"


def test_a_cache_of_another_user_is_refused(cache_settings, tmp_path, caplog):
    cache_settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    cache_settings.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert "belongs to another user" in refused(caplog)


def test_a_cache_that_cannot_be_made_is_no_reason_to_stop(cache_settings, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache_settings.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert "cannot be made" in refused(caplog)


COMPILE = """
from jaxrl_engine.runtime.devices import CompileClock, enable_compile_cache
import jax, jax.numpy as jnp, json
enable_compile_cache()
x = jnp.arange(7.0)
with CompileClock() as clock:
    jax.jit(lambda x: jnp.sin(x) @ x)(x).block_until_ready()
print(json.dumps([clock.compilations, clock.cache_hits]))
"""


def test_a_second_process_finds_the_program(tmp_path):
    cache = tmp_path / "cache"
    results = [python(COMPILE, JAX_PLATFORMS="cpu", JAX_COMPILATION_CACHE_DIR=str(cache)) for _ in range(2)]
    assert [json.loads(result.stdout) for result in results] == [[1, 0], [1, 1]]
    assert any(cache.iterdir())


def test_the_clock_counts_compilations_and_nothing_else():
    x = jnp.arange(11.0)

    def slow_to_trace(x):
        time.sleep(0.1)
        return x * 2

    function = jax.jit(slow_to_trace)
    before = time.perf_counter()
    with CompileClock() as clock:
        function(x).block_until_ready()
        elapsed = time.perf_counter() - before
        first = (clock.compilations, clock.seconds)
        function(x).block_until_ready()
        assert (clock.compilations, clock.seconds) == first
    assert first[0] == 1
    assert 0.1 <= first[1] <= elapsed
    function(jnp.arange(13.0)).block_until_ready()
    assert clock.compilations == 1  # closed


def test_overlapping_spans_count_once():
    clock = CompileClock()
    trace, compile_ = "/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration"
    for event, start, end in [
        (trace, 1.0, 2.0),
        (trace, 4.0, 5.0),
        (trace, 0.5, 3.0),
        (compile_, 3.0, 4.0),
        ("/other", 0.0, 9.0),
    ]:
        clock._on_span(event, start, end)
    assert clock.seconds == 4.5  # from 0.5 to 5, each second once
    assert clock.compilations == 1


def test_two_threads_that_compile(key):
    with CompileClock() as clock:
        threads = [
            threading.Thread(target=jax.jit(lambda x, n=n: x + n), args=(jax.random.normal(key, (3,)),))
            for n in range(4)
        ]
        count = clock.compilations
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert clock.compilations - count == 4


@pytest.mark.gpu
def test_a_gpu_is_found():
    configure_platform("gpu", 1)
    assert peak_memory_bytes() > 0
    mesh = data_mesh(None)
    assert jax.device_count() == (1 if mesh is None else mesh.size)


def test_the_parser_of_platforms_has_no_side_effect(tmp_path: Path):
    """`auto` with one device leaves the environment as it was."""
    before = dict(os.environ)
    configure_platform("auto", 1)
    assert dict(os.environ) == before
