"""The wall's own worlds: what they show is what happened, and training does not notice."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_engine.api import load
from jaxrl_engine.core.config import Config, EvaluationConfig, LoggingConfig
from jaxrl_engine.core.scene import Ink, make_scene
from jaxrl_engine.core.spaces import Box, Discrete
from jaxrl_engine.core.types import EnvSpec, TimeStep
from jaxrl_engine.envs.vector import VectorEnv
from jaxrl_engine.live.curves import Curves
from jaxrl_engine.live.recording import FILE, Recording
from jaxrl_engine.live.wall import Wall, WallOptions
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.map_elites.atlas import Atlas
from jaxrl_engine.modes.map_elites.space import make_space
from jaxrl_engine.modes.onlooker import Onlooker
from jaxrl_engine.modes.players import Uniform
from jaxrl_engine.modes.screens import MOST_FRAMES, Casting, Screens
from jaxrl_engine.modes.train import train
from jaxrl_engine.runtime.config import parse

LAST = 3
"""An episode of `Count` shows 0, 1 and 2, and ends with its third step."""


class Unseen:
    """Counts its steps, in steps of its parameter; the reward is the size of a step."""

    spec = EnvSpec(
        name="count", num_agents=1, observation=Box(shape=(1,), low=(0.0,), high=(99.0,)), action=Discrete(2),
        global_state=Box(shape=(1,), low=(0.0,), high=(99.0,)), time_limit=None, metric_names=(),
    )  # fmt: skip

    def default_params(self):
        return jnp.ones(())

    def _shown(self, count, size, reward):
        seen = (count * size).reshape(1, 1)
        return TimeStep(
            observation=seen, global_state=seen[0], action_mask=None, reward=reward[None], terminated=count >= LAST,
            truncated=jnp.zeros((), bool), metrics={},
        )  # fmt: skip

    def reset(self, key, params):
        return jnp.zeros(()), self._shown(jnp.zeros(()), params, jnp.zeros(()))

    def step(self, key, state, action, params):
        return state + 1.0, self._shown(state + 1.0, params, params)


class Count(Unseen):
    """Shows what it counts."""

    def scene(self, state, params):
        return make_scene((0.0, 0.0, 9.0, 9.0), discs=jnp.stack([state * params, params, jnp.ones(())])[None],
                          disc_inks=jnp.full(1, Ink.FIRST))  # fmt: skip


def screens(sizes):
    """Worlds that count in steps of `sizes[cell]`."""
    player: Any = Uniform(Discrete(2))
    made = Screens(player, VectorEnv(Count(), 2, params_axis=0), lambda casting: jnp.asarray(sizes)[casting.cells])
    return made, player.init(jax.random.key(0), ())


def casting(*cells):
    return Casting(repertoire=None, cells=jnp.asarray(cells, jnp.int32))


@pytest.mark.parametrize("wrap", [jax.jit, lambda function: function])
def test_a_clip_shows_every_step_and_the_ends_of_episodes(wrap):
    made, nobody = screens([1.0, 5.0])
    stage = made.begin(jax.random.key(3), casting(0, 1))
    stage, clip = wrap(made.play)(nobody, stage, casting(0, 1), jnp.asarray(5))
    np.testing.assert_array_equal(clip.scenes.discs[:5, 0, 0, 0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(clip.scenes.discs[:5, 1, 0, 0], [0, 5, 10, 0, 5])
    np.testing.assert_array_equal(clip.ended[:5, 0], [False, False, True, False, False])
    np.testing.assert_array_equal(clip.step[:5, 1], [0, 1, LAST, 0, 1])
    np.testing.assert_array_equal(clip.episode_return[:5, 1], [0, 5, 15, 0, 5])
    assert clip.step.shape == (MOST_FRAMES, 2) and not np.asarray(clip.scenes.discs[5:]).any()
    _, following = made.play(nobody, stage, casting(0, 1), jnp.asarray(2))
    np.testing.assert_array_equal(following.scenes.discs[:2, 0, 0, 0], [2, 0])


def test_a_world_with_another_body_begins_anew_and_the_others_go_on():
    made, nobody = screens([1.0, 5.0, 7.0])
    stage = made.begin(jax.random.key(3), casting(0, 1))
    stage, _ = made.play(nobody, stage, casting(0, 1), jnp.asarray(2))
    _, clip = made.play(nobody, stage, casting(0, 2), jnp.asarray(2))
    np.testing.assert_array_equal(clip.scenes.discs[:2, 0, 0, 0], [2, 0])
    np.testing.assert_array_equal(clip.scenes.discs[:2, 1, 0, 0], [0, 7])


def test_more_frames_than_there_is_room_for_are_cut():
    made, nobody = screens([1.0, 5.0])
    stage = made.begin(jax.random.key(3), casting(0, 1))
    stage, clip = jax.jit(made.play)(nobody, stage, casting(0, 1), jnp.asarray(10 * MOST_FRAMES))
    assert int(stage.actor.vector.episode_length[0]) == MOST_FRAMES % LAST
    assert clip.ended[:, 0].sum() == MOST_FRAMES // LAST


def test_more_screens_than_cells_show_some_bodies_twice():
    """Before elites are judged the screens stand for the first cells, of which there may be fewer."""
    built = build(parse(["--mode", "map-elites", "--qd.max-links", "2", "--qd.bins", "5"]).config)
    atlas = Atlas(make_space(built.config.qd, measures_energy=True))
    wall = Wall(title="", mode="map-elites", algo="ppo", note="", screens=13)
    onlooker = Onlooker(dataclasses.replace(built, env=Unseen()), wall, None, atlas)
    assert sorted(set(onlooker._cast(0.0).tolist())) == [0, 1, 2, 3, 4]
    onlooker._held = np.array([3])
    assert onlooker._cast(1e6).tolist() == [3] * 13


SMALL = Config(
    env="reacher", total_steps=40_000, num_envs=8, num_steps=25, evaluation=EvaluationConfig(count=1, episodes=5),
    logging=LoggingConfig(tensorboard=False),
)  # fmt: skip


def parameters(run_dir):
    return jax.device_get(load(run_dir).train_state.params)


def test_training_is_the_same_to_the_last_bit_whether_anybody_watches_or_not(tmp_path):
    alone = train(SMALL, run_dir=tmp_path / "alone", quiet=True)
    watched = train(SMALL, run_dir=tmp_path / "watched", quiet=True, wall=WallOptions(record=True, screens=3))
    jax.tree.map(np.testing.assert_array_equal, parameters(alone.run_dir), parameters(watched.run_dir))
    assert not (alone.run_dir / FILE).exists()
    recording = Recording(watched.run_dir / FILE)
    told = dict(recording.until(recording.end)[0])
    assert set(told) == {"head", "charts", "screens"}
    head, shown = json.loads(told["head"]), json.loads(told["screens"])
    assert (head["state"], head["env_steps"], head["mode"]) == ("finished", watched.summary["env_steps"], "sync")
    assert len(shown["screens"]) == 3
    curves = Curves()
    curves.read(watched.run_dir / "metrics.jsonl")
    assert json.loads(told["charts"]) == json.loads(json.dumps(curves.message()))
