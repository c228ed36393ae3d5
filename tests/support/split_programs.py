"""Run in a process with eight devices: the same few updates of the named programs over different numbers of them.

Prints a line of JSON: for each job, for each number of devices, what came out.
"""

import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from jaxrl_engine.core.config import (
    CheckpointConfig,
    Config,
    EvaluationConfig,
    HMASDConfig,
    LoggingConfig,
    MapElitesConfig,
    NetworkConfig,
    PPOConfig,
)
from jaxrl_engine.modes.build import build
from jaxrl_engine.modes.probe import collect_and_learn
from jaxrl_engine.modes.programs import make_program
from jaxrl_engine.modes.train import train

PPO = PPOConfig(num_epochs=2, num_minibatches=2, normalize_rewards=True, anneal_learning_rate=False)
SMALL = NetworkConfig(hidden_sizes=(16,))
CARTPOLE = {"env": "gymnax:CartPole-v1", "num_envs": 16, "num_steps": 11, "ppo": PPO, "network": SMALL}
JOBS = {
    "ppo": (Config(**CARTPOLE), (1, 8), 5),
    "gru": (Config(**CARTPOLE | {"network": NetworkConfig(hidden_sizes=(8,), recurrent="gru")}), (1, 8), 3),
    "seeds": (Config(**CARTPOLE, num_seeds=8), (1, 8), 3),
    "hmasd": (
        Config(env="alice_and_bob", algo="hmasd", num_envs=8, num_steps=10, ppo=PPO,
               hmasd=HMASDConfig(width=16, skill_length=5, chunk_length=5)), (1, 4), 1,
    ),
    "map-elites": (
        Config(
            mode="map-elites", env="reacher", env_params={"episode_length": 5}, num_envs=16, num_steps=5,
            total_steps=10 * 16 * 5, ppo=PPOConfig(num_epochs=1, num_minibatches=2, normalize_observations=False),
            network=NetworkConfig(torso="body-mlp", hidden_sizes=(8,)),
            qd=MapElitesConfig(num_initial=11, num_offspring=8, num_targets=8, updates_per_generation=1, bins=3,
                               warm_up=0.2, max_links=3),
        ), (1, 8), 4,
    ),
}  # fmt: skip


def numbers(tree):
    return [np.asarray(jax.device_get(leaf), np.float64).ravel().tolist() for leaf in jax.tree.leaves(tree)]


def run(config, devices, updates):
    built = build(config)
    program = make_program(built, devices)
    state = program.init(built.keys, built.hyper)
    chunk = program.compile(state)
    state, _ = chunk(state, np.int32(updates - updates // 2))
    if updates // 2:
        state, _ = chunk(state, np.int32(updates // 2))
    worlds = getattr(state.actor, "worlds", state.actor)
    lengths = worlds.vector.episode_length
    answer = {
        "devices": len(lengths.sharding.device_set), "shard": lengths.addressable_shards[0].data.shape,
        "lengths": lengths.ravel().tolist(), "params": numbers(state.train_state.params),
        "statistics": numbers(state.train_state.statistics),
    }  # fmt: skip
    if worlds is not state.actor:
        repertoire = state.actor.repertoire
        answer["fitness"] = np.nan_to_num(np.asarray(repertoire.fitness), neginf=-9.0).tolist()
        answer["genotypes"] = numbers(repertoire.genotypes)
    return answer


def learning(config, devices):
    """Floating-point operations of a device in one update's learning, and the compiled program's text."""
    built = build(config)
    program = make_program(built, devices)
    state = program.init(built.keys, built.hyper)
    collect, learn = collect_and_learn(program)
    with program.placement.context():
        collected = jax.jit(collect).lower(state.train_state, state.actor, state.key).compile()
        trajectory = collected(state.train_state, state.actor, state.key)
        learned = jax.jit(learn).lower(state.train_state, trajectory, state.key).compile()
    return {"flops": learned.cost_analysis()["flops"], "text": learned.as_text()}


def resumed(directory):
    """The same 12 updates in one go on one device, and on 8, then 4, then one."""
    quiet = {"evaluation": EvaluationConfig(count=1, episodes=4), "logging": LoggingConfig(tensorboard=False),
             "checkpoint": CheckpointConfig()}  # fmt: skip
    steps = 16 * 11

    def config(updates):
        return Config(**CARTPOLE, **quiet, total_steps=updates * steps)

    whole = train(config(12), run_dir=directory / "whole", quiet=True)
    parts = train(config(4), run_dir=directory / "parts", devices=8, quiet=True)
    for updates, devices in ((8, 4), (12, 1)):
        parts = train(config(updates), resume=parts.run_dir, devices=devices, quiet=True)
    return {"whole": whole.summary["eval"], "parts": parts.summary["eval"], "updates": parts.summary["updates"]}


def main(names):
    answers = {}
    for name in names:
        config, counts, updates = JOBS[name]
        answers[name] = {devices: run(config, devices, updates) for devices in counts}
    if "ppo" in names:
        answers["learning"] = {devices: learning(JOBS["ppo"][0], devices) for devices in (1, 8)}
        with tempfile.TemporaryDirectory() as directory:
            answers["resumed"] = resumed(Path(directory))
    print(json.dumps(answers))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
