"""A frozen dataclass that is a pytree: the base of every array container in the engine."""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

import jax

SelfStruct = TypeVar("SelfStruct", bound="Struct")


def static_field(**kwargs: Any) -> Any:
    """Declare a field that is part of the tree's structure, not one of its leaves (it must be hashable)."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(static_field, dataclasses.field))
class Struct:
    """Subclasses become frozen, keyword-only dataclasses registered as pytrees.

    Unflattening skips `__init__`: tree transformations put shapes, shardings or `None` where arrays were, and a
    shape check in the constructor would reject such intermediate trees.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        leaves = tuple(f.name for f in fields if not f.metadata.get("static"))
        statics = tuple(f.name for f in fields if f.metadata.get("static"))
        names = leaves + statics

        def flatten_with_keys(tree: Any) -> tuple[Iterable[tuple[Any, Any]], tuple[Any, ...]]:
            children = tuple((jax.tree_util.GetAttrKey(name), getattr(tree, name)) for name in leaves)
            return children, tuple(getattr(tree, name) for name in statics)

        def flatten(tree: Any) -> tuple[Iterable[Any], tuple[Any, ...]]:
            values = tree.__dict__
            return [values[name] for name in leaves], tuple([values[name] for name in statics])

        def unflatten(auxiliary: tuple[Any, ...], children: Iterable[Any]) -> Any:
            tree = object.__new__(cls)
            tree.__dict__.update(zip(names, (*children, *auxiliary), strict=True))
            return tree

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)

    def replace(self: SelfStruct, **changes: Any) -> SelfStruct:
        """Return a copy with the named fields changed.

        Raises:
            TypeError: a name is not a field.
        """
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]
