"""Transforms against numbers worked out by hand, and against the same said in plain numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services import messages as m
from services.errors import NonFiniteUpdate
from services.transforms import TRANSFORMS, Transform, first_bounds, next_bounds, transform
from services.transforms.clipping import AdaptiveClipNorm, ClipNorm
from services.transforms.outliers import ZeroOutliers
from services.weights import Tensor
from services.weights.tensors import DTYPES, name_tensors

Array = NDArray[Any]
FLOATS = ["float16", "bfloat16", "float32", "float64"]
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
every_float = pytest.mark.parametrize("dtype", FLOATS)


def tensors(*values: Any, dtype: str = "float64") -> tuple[Tensor, ...]:
    """Tensors "0", "1", … of a dtype."""
    return name_tensors([np.array(value, DTYPES[dtype]) for value in values])


def values(update: Sequence[Tensor]) -> list[Any]:
    """The numbers of tensors."""
    return [tensor.array.astype(np.float64).tolist() for tensor in update]


def apply(one: Transform, model: Sequence[Tensor], update: Sequence[Tensor]) -> m.Transformed:
    """One transform with its first bound."""
    (done,) = transform([one], first_bounds([one]), model, update)
    return done


# ---- by hand
@every_float
def test_a_far_update_is_clipped_to_the_norm(dtype: str) -> None:
    """|(3, 4)| = 5; with the bound 2.5 half of it stays: (1, 1) + (1.5, 2)."""
    update = tensors([4], 5, dtype=dtype)
    done = apply(ClipNorm(2.5), tensors([1], 1, dtype=dtype), update)
    assert values(update) == [[2.5], 3]
    assert done == m.Transformed(name="ClipNorm", norm=5.0, bound=2.5, did="clipped")


@every_float
@pytest.mark.parametrize("one", [ClipNorm(0.01), AdaptiveClipNorm(initial_norm=0.01)], ids=["ClipNorm", "Adaptive"])
def test_what_is_stored_of_a_clipped_update_is_never_above_the_bound(dtype: str, one: Transform) -> None:
    """Whatever the dtype holds near the model: a bfloat16 near 1 is 0.004 from the next one."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        base = random.normal(1, 0.5, 200)
        model, update = tensors(base, dtype=dtype), tensors(base + random.normal(0, 0.1, 200), dtype=dtype)
        apply(one, model, update)
        difference = update[0].array.astype(np.float64) - model[0].array.astype(np.float64)
        assert math.sqrt(math.fsum(difference**2)) <= 0.01
        assert dtype in ("bfloat16", "float16") or math.sqrt(math.fsum(difference**2)) > 0.0099


@every_float
def test_an_update_within_the_bound_is_left_to_the_bit(dtype: str) -> None:
    """A norm of exactly the bound is within it."""
    update = tensors([4, -0.0], 5, dtype=dtype)
    before = [tensor.array.tobytes() for tensor in update]
    done = apply(ClipNorm(5), tensors([1, 0.0], 1, dtype=dtype), update)
    assert [tensor.array.tobytes() for tensor in update] == before
    assert done == m.Transformed(name="ClipNorm", norm=5.0, bound=5.0, did="kept")


@every_float
def test_an_outlier_counts_as_no_change(dtype: str) -> None:
    """A difference of -4 exceeds 3.5 and is dropped with all others; of 3.5 it does not."""
    model, update = tensors([1, 2], 5, dtype=dtype), tensors([1.5, 2], 1, dtype=dtype)
    assert apply(ZeroOutliers(3.5), model, update).did == "zeroed"
    assert values(update) == [[1, 2], 5]
    update = tensors([1.5, 2], 1.5, dtype=dtype)
    done = apply(ZeroOutliers(norm=3.5), model, update)
    assert values(update) == [[1.5, 2], 1.5]
    assert done == m.Transformed(name="ZeroOutliers", norm=3.5, bound=3.5, did="kept")


def test_zeroing_by_default_allows_twice_the_quantile_and_one() -> None:
    """First estimate 10: up to 2 · 10 + 1 = 21."""
    for value, did in ((21.0, "kept"), (21.5, "zeroed")):
        done = apply(ZeroOutliers(), tensors(0), tensors(-value))
        assert (done.bound, done.norm, done.did) == (21.0, value, did)


def test_the_clipping_bound_moves_towards_the_quantile() -> None:
    """Bound 1, rate 0.2, median: of 4 norms 3 within give exp(-0.2 · 0.25), none exp(0.1), half nothing."""
    one = AdaptiveClipNorm(initial_norm=1.0)
    assert one.next_bound(1.0, [0.1, 0.2, 1.0, 9.0]) == pytest.approx(math.exp(-0.05), rel=1e-15)
    assert one.next_bound(1.0, [2.0, 3.0]) == pytest.approx(math.exp(0.1), rel=1e-15)
    assert one.next_bound(1.0, [2.0, 0.5]) == 1.0
    assert AdaptiveClipNorm().first_bound == 0.1


def test_the_zeroing_bound_moves_by_tens() -> None:
    """Rate ln 10, quantile 0.98: with all within, 10^-0.02 of it; with none, 10^0.98 of it."""
    assert ZeroOutliers().next_bound(10.0, [1.0, 10.0]) == pytest.approx(10 * 10**-0.02, rel=1e-14)
    assert ZeroOutliers().next_bound(10.0, [11.0, math.inf]) == pytest.approx(10 * 10**0.98, rel=1e-14)


def test_bounds_that_stay_stay() -> None:
    """Whatever the norms are."""
    assert ClipNorm(3.0).next_bound(3.0, [1.0]) == ZeroOutliers(norm=3.0).next_bound(3.0, [9.0]) == 3.0


def test_a_bound_stays_a_number() -> None:
    """After many rounds in one direction, at the steepest rate."""
    for norm, end in ((0.0, 1e-150), (math.inf, 1e150)):
        one, bound = AdaptiveClipNorm(learning_rate=100.0), 0.1
        for _ in range(30):
            bound = one.next_bound(bound, [norm])
        assert bound == end


def test_each_transform_sees_what_the_one_before_left() -> None:
    """(30, 40) is zeroed by a bound of 39, so that nothing is left to clip; the other way round it is clipped to 5."""
    chain: list[Transform] = [ZeroOutliers(norm=39), ClipNorm(norm=5)]
    model, update = tensors([0, 0]), tensors([30, 40])
    done = transform(chain, first_bounds(chain), model, update)
    assert [(one.name, one.norm, one.did) for one in done] == [("ZeroOutliers", 40, "zeroed"), ("ClipNorm", 0, "kept")]
    chain.reverse()
    update = tensors([30, 40])
    done = transform(chain, first_bounds(chain), model, update)
    assert [(one.norm, one.did) for one in done] == [(50, "clipped"), (4, "kept")]
    assert values(update) == [[3, 4]]


def test_bounds_follow_the_updates_of_an_aggregation() -> None:
    """Column by column, in any order of the updates; what is not finite lies within no bound; no update, no change."""
    chain: list[Transform] = [ZeroOutliers(), ClipNorm(1.0), AdaptiveClipNorm(1.0)]

    def done(*norms: float | None) -> list[m.Transformed]:
        return [m.Transformed(name="x", norm=norm, bound=1.0, did="kept") for norm in norms]

    updates = [done(None, 1, 0.5), done(50, 1, 2), done(1, 1, 0.1)]
    after = next_bounds(chain, (10.0, 1.0, 1.0), updates)
    assert after == next_bounds(chain, (10.0, 1.0, 1.0), updates[::-1])
    assert after == pytest.approx((10 * 10 ** (0.98 - 1 / 3), 1.0, math.exp(-0.2 * (2 / 3 - 0.5))), rel=1e-14)
    assert next_bounds(chain, (1.0, 2.0, 3.0), []) == (1.0, 2.0, 3.0)
    assert next_bounds((), (), [(), ()]) == ()


# ---- what is left alone
def mixed(value: float) -> tuple[Tensor, ...]:
    """A float of every dtype that is trained, one that is not, integers and a bool, all of this value."""
    names = [*FLOATS, "float32", "int64", "uint8", "bool"]
    arrays = [np.full((2,), value).astype(DTYPES[name]) for name in names]
    return name_tensors(arrays, trainable=[True] * 4 + [False, True, True, True])


@pytest.mark.parametrize("one", [ClipNorm(math.sqrt(8) / 2), ZeroOutliers(norm=0.5)], ids=["clip", "zero"])
def test_only_trainable_floats_are_measured_and_changed(one: Transform) -> None:
    """Eight numbers that differ by 1 have the norm √8; what is not trained, whole numbers and bools stay as sent."""
    update = mixed(1)
    done = apply(one, mixed(0), update)
    changed = 0.5 if done.did == "clipped" else 0.0
    assert values(update) == [[changed] * 2] * 4 + [[1, 1]] * 4
    assert done.norm == pytest.approx(math.sqrt(8) if changed else 1)


def test_the_model_says_what_is_trainable() -> None:
    """An update that claims that nothing of it is trainable is clipped all the same."""
    claims = name_tensors([np.array([3.0, 4.0])], trainable=[False])
    assert apply(ClipNorm(1), tensors([0, 0]), claims).did == "clipped"
    assert values(claims) == [pytest.approx([0.6, 0.8], rel=1e-15)]


def test_a_model_without_such_tensors_is_kept() -> None:
    """Nothing to measure is a norm of 0."""
    for one in (ClipNorm(1), ZeroOutliers(norm=0)):
        update = tensors([1, 2], [], dtype="int32")
        assert apply(one, tensors([5, 6], [], dtype="int32"), update).norm == 0
        assert values(update) == [[1, 2], []]


# ---- the ends of the range
def test_differences_whose_squares_overflow_or_vanish_are_measured() -> None:
    """|(3, 4)| = 5 also in units of 1e200 and of 1e-200."""
    update = tensors([3e-200, 4e-200])
    done = apply(ClipNorm(1.0), tensors([0, 0]), update)
    assert done.norm == pytest.approx(5e-200, rel=1e-14, abs=0)
    assert done.did == "kept"
    update = tensors([3e200, 4e200])
    done = apply(ClipNorm(1e150), tensors([0, 0]), update)
    assert done.norm == pytest.approx(5e200, rel=1e-14)
    assert done.did == "clipped"
    assert values(update) == [pytest.approx([0.6e150, 0.8e150], rel=1e-14)]


@every_float
def test_what_is_not_finite_cannot_be_clipped(dtype: str) -> None:
    """It is refused by the tensor's name."""
    for wrong in (math.nan, math.inf, -math.inf):
        with pytest.raises(NonFiniteUpdate) as caught:
            apply(ClipNorm(1), tensors(0, [0, 0], dtype=dtype), tensors(0, [0, wrong], dtype=dtype))
        assert caught.value.values == {"tensor": "1"}


def test_a_difference_beyond_float64_is_refused_or_zeroed() -> None:
    """Both numbers are finite, what lies between them is not."""
    with pytest.raises(NonFiniteUpdate, match="more than a float64 can tell"):
        apply(ClipNorm(1), tensors(-1.7e308), tensors(1.7e308))
    update = tensors(1.7e308)
    done = apply(ZeroOutliers(), tensors(-1.7e308), update)
    assert (values(update), done.norm, done.did) == ([-1.7e308], None, "zeroed")


def test_infinity_is_an_outlier_and_nan_is_not() -> None:
    """NaN is left for the check that comes after."""
    update = tensors([math.inf, 1.0])
    assert apply(ZeroOutliers(), tensors([5, 6]), update).did == "zeroed"
    assert values(update) == [[5, 6]]
    update = tensors([math.nan, 100.0])
    done = apply(ZeroOutliers(), tensors([5, 6]), update)
    assert (done.did, done.norm) == ("kept", None)
    assert math.isnan(values(update)[0][0])


# ---- said again in plain numpy
@st.composite
def models(draw: st.DrawFn) -> tuple[list[Array], list[Array], list[bool]]:
    """A model, an update of it and trainable flags: a few tensors of float dtypes, 0-d and empty ones too."""
    count = draw(st.integers(1, 4))
    shapes = draw(st.lists(st.sampled_from([(), (0,), (3,), (2, 3)]), min_size=count, max_size=count))
    dtypes = draw(st.lists(st.sampled_from(FLOATS), min_size=count, max_size=count))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0.0, 1e-3, 1.0, 100.0]))
    old = [
        np.asarray(rng.normal(0, 1, shape)).astype(DTYPES[dtype]) for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    moved = [np.asarray(a.astype(np.float64) + rng.normal(0, spread, a.shape)).astype(a.dtype) for a in old]
    return old, moved, draw(st.lists(st.booleans(), min_size=count, max_size=count))


def plainly(old: list[Array], new: list[Array], flags: list[bool], kind: str, bound: float) -> list[Array]:
    """What a transform makes of an update, over whole arrays."""
    differences = [n.astype(np.float64) - o.astype(np.float64) for o, n in zip(old, new, strict=True)]
    measured = np.concatenate([d.ravel() for d, flag in zip(differences, flags, strict=True) if flag] or [np.zeros(1)])
    norm = np.sqrt((measured**2).sum()) if kind == "clip" else np.abs(measured).max(initial=0.0)
    if norm <= bound:
        return new
    factor = bound / norm if kind == "clip" else 0.0
    return [
        (o.astype(np.float64) + factor * d).astype(o.dtype) if flag else n
        for o, n, d, flag in zip(old, new, differences, flags, strict=True)
    ]


@given(models(), st.sampled_from(["clip", "zero"]), st.floats(1e-3, 50))
def test_transforms_are_what_plain_numpy_makes(
    drawn: tuple[list[Array], list[Array], list[bool]], kind: str, bound: float
) -> None:
    """In every float dtype, to a rounding of the dtype; the model is not written to."""
    old, new, flags = drawn
    want = plainly(old, new, flags, kind, bound)
    kept = [array.tobytes() for array in old]
    update = name_tensors([array.copy() for array in new])
    one = ClipNorm(bound) if kind == "clip" else ZeroOutliers(norm=bound)
    done = apply(one, name_tensors(old, trainable=flags), update)
    assert [array.tobytes() for array in old] == kept
    for tensor, array in zip(update, want, strict=True):
        assert (tensor.dtype, tensor.shape) == (array.dtype, array.shape)
        step = EPS[array.dtype.name]
        ours, theirs = tensor.array.astype(np.float64), array.astype(np.float64)
        np.testing.assert_allclose(ours, theirs, rtol=4 * step, atol=1e-12)
    assert (done.did == "kept") == (done.norm is not None and done.norm <= done.bound)


def test_a_large_model_is_worked_through_in_blocks() -> None:
    """Tensors of several blocks beside small ones: the norm afterwards is the bound."""
    rng = np.random.default_rng(7)
    shapes = [(300, 700), (5,), (), (70_000,), (3, 3)]
    old = [np.asarray(rng.normal(0, 1, shape), np.float32) for shape in shapes]
    new = [np.asarray(a + rng.normal(0, 1, a.shape), np.float32) for a in old]
    want = plainly(old, new, [True] * 5, "clip", 2.0)
    update = name_tensors([array.copy() for array in new])
    apply(ClipNorm(2.0), name_tensors(old), update)
    for tensor, array in zip(update, want, strict=True):
        np.testing.assert_allclose(tensor.array, array, rtol=1e-6, atol=1e-12)
    moved = np.concatenate([(t.array.astype(float) - o).ravel() for t, o in zip(update, old, strict=True)])
    assert np.linalg.norm(moved) == pytest.approx(2.0, rel=1e-4)


# ---- parameters
@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("ClipNorm", {"norm": 0}, "norm must be a finite number of at least"),
        ("ClipNorm", {"norm": True}, "norm must be a finite number"),
        ("ClipNorm", {"norm": "1"}, "norm must be a finite number"),
        ("ClipNorm", {"norm": 10**400}, "norm must be a finite number"),
        ("ClipNorm", {"norm": math.nan}, "norm must be a finite number"),
        ("AdaptiveClipNorm", {"initial_norm": -1}, "initial_norm must be"),
        ("AdaptiveClipNorm", {"quantile": 1.1}, "quantile must be a finite number of at least 0 and at most 1"),
        ("AdaptiveClipNorm", {"learning_rate": -0.1}, "learning_rate must be"),
        ("ZeroOutliers", {"norm": -1}, "norm must be"),
        ("ZeroOutliers", {"multiplier": 0}, "multiplier must be"),
        ("ZeroOutliers", {"increment": None}, "increment must be"),
        ("ZeroOutliers", {"norm": 1, "quantile": 0.5}, "goes with no other parameter"),
    ],
)
def test_a_value_that_cannot_be_is_refused(name: str, parameters: dict[str, Any], told: str) -> None:
    """By the parameter's name."""
    with pytest.raises(ValueError, match=told):
        TRANSFORMS[name](**parameters)
