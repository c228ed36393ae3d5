"""The async learner on several devices, which change nothing of what it learns: simulated ones in their own process."""

import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from several_devices import with_devices

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.modes.actor_learner.spread import Spread
from jaxrl_engine.modes.placement import Placement

SHARDS, RING, UPDATES = 8, 37, 5
WORLD = (
    "--mode async --env gymnax:CartPole-v1 --num-envs 16 --num-workers 2 --num-steps 3 --batch-size 96 "
    "--min-buffer-size 48 --num-epochs 2 --ppo.num-minibatches 2 --network.hidden-sizes 7 --total-steps 4800 "
    f"--buffer-capacity {SHARDS * RING * 3} --lockstep --impact.replay-shards {SHARDS} --per-alpha 0.9"
)
RUN = """
import json, sys, jax, jax.numpy as jnp, numpy as np

jax.config.update("jax_compilation_cache_dir", sys.argv[3])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
from jaxrl_engine.modes.actor_learner.program import AsyncProgram
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.placement import Placement
from jaxrl_engine.runtime.config import parse
from jaxrl_engine.runtime.devices import data_mesh

world, updates = sys.argv[1].split(), int(sys.argv[2])

def numbers(tree):
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(tree)]

def begin(devices):
    program = AsyncProgram(build(parse(world).config), Placement(data_mesh(devices)))
    return program, program.init(jax.random.key(0), program.hyper)

def said(state):
    learner, ring = state.learner, state.learner.replay.items.observation
    names = ("uses", "versions", "position", "size", "expired_by_age", "expired_by_reuse")
    return {
        "shard": ring.addressable_shards[0].data.shape, "devices": len(ring.sharding.device_set),
        "counts": [np.asarray(getattr(learner.replay, name)).tolist() for name in names],
        "worth": np.asarray(learner.replay.tree.priorities).tolist(), "ring": np.asarray(ring).tolist(),
        "params": numbers(learner.train_state.params),
    }

answers = {}
for devices in (1, 2, 8, 4):
    program, state = begin(devices)
    chunk = program.compile(state)
    state, rows = chunk(state, updates)
    behaviour = program._running.latest[1]
    answers[devices] = said(state)
    answers[devices]["behaviour"] = sorted({len(leaf.sharding.device_set) for leaf in jax.tree.leaves(behaviour)})
    answers[devices]["eligible"] = float(rows.values["Buffer/Eligible"][int(rows.count) - 1])
    if devices == 8:
        chunks = (program._example(),) * program.rollouts_per_update
        answers["hlo"] = program.spread.lower(program.learner, state.learner, chunks).compile().as_text()
    if devices == 4:
        saved = jax.tree.map(jnp.copy, jax.device_put(jax.device_get(program.saved(state))))
        state, _ = chunk(state, updates)
        answers["undisturbed"] = said(state)
    program.close()
program, state = begin(2)
state = jax.device_put(program.whole(saved), program.shardings(state))
state, _ = program.compile(state)(state, updates)
program.close()
answers["resumed"] = said(state)
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    command = [sys.executable, "-c", RUN, WORLD, str(UPDATES), str(tmp_path_factory.mktemp("compiled"))]
    done = subprocess.run(command, env=with_devices(SHARDS), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def close(a, b, rtol=2e-5, atol=2e-6):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_more_devices_compute_what_one_does(answers, devices):
    one, several = answers["1"], answers[str(devices)]
    assert (several["devices"], several["shard"][:2]) == (devices, [SHARDS // devices, RING])
    assert one["counts"] == several["counts"] and one["eligible"] == several["eligible"] > 48
    close(one["params"], several["params"])
    close([one["worth"], one["ring"]], [several["worth"], several["ring"]])
    assert sum(map(sum, one["counts"][0])) > 0, "nothing was replayed"


@pytest.mark.slow
def test_actors_work_on_one_device(answers):
    assert {tuple(answers[str(devices)]["behaviour"]) for devices in (1, 2, 4, 8)} == {(1,)}


@pytest.mark.slow
def test_a_run_goes_on_on_other_devices(answers):
    resumed, straight = answers["resumed"], answers["undisturbed"]
    assert (resumed["devices"], straight["devices"]) == (2, 4) and resumed["counts"] == straight["counts"]
    assert straight["counts"] != answers["4"]["counts"]
    close(resumed["params"], straight["params"])


@pytest.mark.slow
def test_no_device_is_sent_the_ring_and_gradients_are_of_a_part_each(answers):
    text = answers["hlo"]
    moved = re.findall(r"= (.*?) (?:all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", text)
    shapes = [tuple(map(int, dims.split(","))) for each in moved for dims in re.findall(r"\[([\d,]+)\]", each)]
    assert shapes and all(RING not in shape for shape in shapes)
    assert max(np.prod(shape) for shape in shapes) <= 32 * 4 * 4  # the batch's observations, with the last ones
    rows = {int(n) for n in re.findall(r"f32\[(\d+),7\]\S* dot\(.*while/body", text)}
    assert 96 // 2 // SHARDS in rows and 96 // 2 not in rows


@pytest.mark.parametrize(("shards", "fix"), [(1, 4), (6, 8), (9, 12)])
def test_shards_that_devices_cannot_share_are_refused_with_the_way_out(shards, fix):
    message = (
        rf"impact.replay_shards must be a multiple of the 4 devices \(--impact.replay-shards {fix}\), not {shards}"
    )
    with pytest.raises(UserError, match=message):
        Spread(Placement(Mesh(np.array(jax.devices()[:1] * 4), ("data",))), shards)
