"""`Struct`: a frozen dataclass that every tree transformation can take apart and put together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Float

from jaxrl_engine.core.struct import Struct, static_field
from jaxrl_engine.core.types import Decision, Leaf


class Inner(Struct):
    weight: Float[Leaf, "*batch D"]


class Outer(Struct):
    inner: Inner
    count: Leaf
    optional: Leaf | None = None
    label: str = static_field(default="plain")


def make(label="plain"):
    return Outer(inner=Inner(weight=jnp.arange(6.0).reshape(2, 3)), count=jnp.int32(5), label=label)


def test_is_a_frozen_keyword_only_dataclass():
    tree = make()
    assert dataclasses.is_dataclass(tree)
    with pytest.raises(dataclasses.FrozenInstanceError):
        tree.count = jnp.int32(6)
    with pytest.raises(TypeError, match="positional"):
        Inner(jnp.zeros((2, 3)))
    with pytest.raises(TypeError, match="weight"):
        Inner()


def test_replace_changes_only_what_it_names():
    tree = make()
    changed = tree.replace(count=jnp.int32(7), label="other")
    assert (int(changed.count), changed.label) == (7, "other")
    assert changed.inner is tree.inner
    assert (int(tree.count), tree.label) == (5, "plain")
    with pytest.raises(TypeError, match="colour"):
        tree.replace(colour=1)


def test_static_fields_are_structure_not_leaves():
    assert len(jax.tree.leaves(make())) == 2
    assert jax.tree.structure(make()) == jax.tree.structure(make())
    assert jax.tree.structure(make()) != jax.tree.structure(make(label="other"))
    traces = []
    function = jax.jit(lambda tree: (traces.append(tree.label), tree.count + 1)[1])
    for label in ("plain", "other", "plain"):
        assert function(make(label)) == 6
    assert traces == ["plain", "other"]


def test_key_paths_name_the_fields():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(make())]
    assert paths == [".inner.weight", ".count"]


@pytest.mark.parametrize("fill", [None, object(), 1, jax.ShapeDtypeStruct((5,), jnp.int32)])
def test_round_trip_with_anything_in_place_of_arrays(fill):
    # Shardings, shapes, axis numbers: a tree of them must not be refused by the check of the arrays' shapes, which
    # stands in the constructor of `Decision` (a class of the package, so the hook has it) while tests run.
    decision = Decision(env_action=jnp.zeros(7), action=jnp.zeros(7), log_prob=jnp.zeros((7, 3)), extras=make())
    leaves, structure = jax.tree.flatten(decision)
    tree = jax.tree.unflatten(structure, [fill for _ in leaves])
    assert isinstance(tree, Decision)
    assert isinstance(tree.extras, Outer)
    assert tree.log_prob is tree.extras.inner.weight is fill
    assert (tree.extras.optional, tree.extras.label) == (None, "plain")


def test_transformations_keep_the_class():
    tree = make()
    shapes = jax.eval_shape(lambda tree: tree.replace(count=tree.count + 1), tree)
    assert shapes.inner.weight == jax.ShapeDtypeStruct((2, 3), jnp.float32)
    on_host = jax.device_get(tree)
    assert isinstance(on_host.inner.weight, np.ndarray)
    summed = jax.vmap(lambda inner: inner.replace(weight=inner.weight.sum(keepdims=True)))(tree.inner)
    np.testing.assert_array_equal(summed.weight, [[3.0], [12.0]])
    carried, _ = jax.lax.scan(lambda carry, _: (carry.replace(count=carry.count + 1), None), tree, length=4)
    assert int(carried.count) == 9
    jax.jit(lambda tree: tree).lower(shapes).compile()


def test_the_hook_checks_shapes_where_a_struct_is_built():
    # Were the import hook off, every shape in the package would be a comment.
    fields = {"env_action": jnp.zeros(7), "action": jnp.zeros(7), "extras": None}
    assert Decision(log_prob=jnp.zeros((7, 3)), **fields).log_prob.shape == (7, 3)
    with pytest.raises(Exception, match="log_prob"):
        Decision(log_prob=jnp.zeros(7, jnp.int32), **fields)
    with pytest.raises(Exception, match="log_prob"):
        Decision(log_prob=jnp.zeros(()), **fields)  # at least the agent axis must be there
