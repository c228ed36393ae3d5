"""Which UAV serves which user: strongest link first, as long as the UAV has room."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def associate(
    strength: Float[Array, "uavs users"], candidate: Bool[Array, "uavs users"], capacity: int
) -> Int[Array, "users"]:
    """Return the UAV that serves each user, -1 where none does.

    The rule: go through the candidate links from the strongest to the weakest (among equals the lower UAV first, then
    the lower user) and accept a link where its user is still unserved and its UAV serves fewer than `capacity`.

    The same matching is reached without going through links one by one. Both sides rank links by one common order, so
    exactly one matching is stable, and greedy finds it (Abraham, Levavi, Manlove, O'Malley 2008, on globally ranked
    pairs); so does deferred acceptance (Gale, Shapley 1962): all users ask their strongest UAV that has not refused
    them, each UAV keeps the strongest `capacity` and refuses the rest for good, until nobody refused has whom to ask.
    Where a candidate's SINR is at least 0 dB no user has two of them, and one round is all.
    """
    users = jnp.arange(strength.shape[1])

    def one_round(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        willing, _, _ = carry
        asks = willing.any(axis=0)
        wanted = jnp.where(willing, strength, -jnp.inf)
        asked, link = wanted.argmax(axis=0), wanted.max(axis=0)
        rank = _rivals_ahead(jnp.where(asks, asked, -1), link)
        kept = asks & (rank < capacity)
        refused = (asks & ~kept)[None] & (jnp.arange(strength.shape[0])[:, None] == asked[None])
        willing = willing & ~refused
        return willing, jnp.where(kept, asked, -1), (~kept & willing.any(axis=0)).any()

    nobody = jnp.full(users.shape, -1, jnp.int32)
    start = (candidate, nobody, jnp.ones((), bool))
    return jax.lax.while_loop(lambda carry: carry[2], one_round, start)[1]


def _rivals_ahead(asked: Int[Array, "users"], link: Float[Array, "users"]) -> Int[Array, "users"]:
    """How many users ask the same UAV with a stronger link, or an equally strong one and a lower index."""
    users = jnp.arange(asked.shape[0])
    stronger = link[None] > link[:, None]
    first = (link[None] == link[:, None]) & (users[None] < users[:, None])
    return ((asked[None] == asked[:, None]) & (stronger | first)).sum(axis=1)
