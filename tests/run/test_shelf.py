"""Which image is fetched, and which goes: by the order of what is to come, within the budget, layers counted once."""

from hypothesis import given
from hypothesis import strategies as st

from aem_harness.harness.run.shelf import Move, Shelf

BASE = {"base": 100}


def image(name: str, size: int = 10) -> dict[str, int]:
    return {**BASE, name: size}


def shelf(budget: float | None, *names: str) -> Shelf:
    made = Shelf(budget=budget)
    for name in names:
        made.arrived(name, image(name))
    made._known |= {"x": image("x"), "y": image("y")}  # of earlier: 10 bytes are expected of the next
    return made


def test_images_are_fetched_in_the_order_of_need_each_once():
    made = shelf(None)
    seen = []
    while (move := made.next(["b", "b", "a", "c", "a"])).fetch:
        seen.append(move.fetch)
        made.arrived(move.fetch, image(move.fetch))
    assert seen == ["b", "a", "c"]


def test_layers_that_images_share_are_counted_once():
    assert shelf(None, "a", "b", "c").used == 130


def test_the_image_that_is_needed_again_last_goes_first_and_those_that_are_not_before_it():
    made = shelf(130, "a", "b", "c")
    assert made.next(["a", "c", "d", "c", "b"]) == Move("d", ("b",))
    made = shelf(130, "a", "b", "c")
    assert made.next(["b", "d", "c"]) == Move("d", ("a",)), "a is not needed again"


def test_of_images_that_are_not_needed_again_the_longest_unused_goes():
    made = shelf(130, "a", "b", "c")
    for name in ("b", "a", "c"):
        made.take(name)
        made.release(name)
    assert made.next(["d"]) == Move("d", ("b",))


def test_an_image_that_is_needed_sooner_never_goes_for_one_that_is_needed_later():
    made = shelf(120, "a", "b")
    assert made.next(["a", "b", "c"]).fetch is None or made.held == {}
    made = shelf(120, "a", "b")
    made.take("a")
    assert made.next(["a", "b", "c"]) == Move(), "c waits until a or b is done with"


def test_what_is_held_or_not_ours_stays():
    made = shelf(120, "a", "b")
    made.kept.add("a")
    made.take("b")
    assert made.next(["c"]) == Move()
    made.release("b")
    assert made.next(["c"]) == Move("c", ("b",))


def test_an_image_larger_than_the_budget_is_fetched_alone_since_waiting_would_not_help():
    made = shelf(105)
    made._known.clear()
    made._known["z"] = {"z": 120}
    assert made.next(["a"]) == Move("a")
    assert made.next(["a", "b"]) == Move(), "and nothing beside it"


def test_an_image_that_could_not_be_had_is_not_asked_for_again():
    made = shelf(None)
    assert made.next(["a"]).fetch == "a"
    made.not_coming("a", failed=True)
    assert made.next(["a", "a"]) == Move()


def test_what_proves_larger_than_expected_makes_room_or_waits():
    made = shelf(200, "a", "b")
    made.coming["c"] = 10.0
    made.grew("c", 28)  # unpacked 84, as is thought until images have shown it
    assert made.relief(["c", "b"]) == ("a",)
    made.take("a")
    made.take("b")
    assert made.relief(["c", "b"]) is None
    assert not made.cannot_fit("c", 28), "it may be packed less tightly"
    assert made.cannot_fit("c", 81)
    made.not_coming("c")
    assert made.expected("c") == 84, "it is not begun again before so much fits"


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=60),
    st.integers(1, 4),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_whatever_the_order_all_is_worked_within_the_budget_and_never_stuck(order, workers, room, dice):
    """A run in small: workers take the next task, wait for its image, and end in any order."""
    made, waiting = shelf(100 + 10 * room, "known"), [f"i{n}" for n in order]
    begun: list[str] = []
    working: list[str] = []
    while waiting or begun or working:
        while waiting and len(begun) + len(working) < workers:
            begun.append(waiting.pop(0))
        move = made.next([*working, *begun, *waiting])
        for name in move.evict:
            assert name not in made.held
            made.gone(name)
        if move.fetch:
            made.arrived(move.fetch, image(move.fetch))
        ready = [name for name in begun if name in made.present]
        assert ready or working or move.fetch, "nothing moves any more"
        for name in ready:
            begun.remove(name)
            working.append(name)
            made.take(name)
        if working and (dice.random() < 0.5 or not move.fetch):
            done = dice.choice(working)
            working.remove(done)
            made.release(done)
        assert made.used <= 100 + 10 * room
    assert not made.held


def in_family(number: int) -> dict[str, int]:
    """An image of one of three families, whose images share a layer, as those of one repository and version do."""
    return {**BASE, f"family-{number % 3}": 40, f"own-{number}": 10}


@given(
    st.lists(st.integers(0, 11), min_size=1, max_size=60),
    st.integers(1, 4),
    st.integers(260, 420),
    st.randoms(use_true_random=False),
)
def test_layers_that_a_coming_image_shares_with_a_removed_one_never_lead_over_the_budget(order, workers, budget, dice):
    """An engine keeps a layer that a pull found present, whichever image is removed meanwhile; and it tells how much
    is to be downloaded only when the pull has begun."""
    made = Shelf(budget=budget, _measured=True, _ratio=1.0)
    made._known |= {"x": {**BASE, "own-x": 60}, "y": {**BASE, "own-y": 60}}  # as large as any will be
    waiting, coming = [f"{n}" for n in order], dict[str, set[str]]()
    begun: list[str] = []
    working: list[str] = []

    def disk() -> int:
        layers = {layer for name in made.present for layer in in_family(int(name))}
        kept = {layer for name, found in coming.items() for layer in found | set(in_family(int(name)))}
        return sum(100 if layer == "base" else 40 if layer.startswith("family") else 10 for layer in layers | kept)

    while waiting or begun or working:
        while waiting and len(begun) + len(working) < workers:
            begun.append(waiting.pop(0))
        upcoming = [*working, *begun, *waiting]
        move = made.next(upcoming) if len(coming) < 3 else Move()
        for name in move.evict:
            made.gone(name)
        if move.fetch:
            layers = in_family(int(move.fetch))
            here = {layer for name in made.present for layer in in_family(int(name))} & set(layers)
            missing = sum(size for layer, size in layers.items() if layer not in here)
            made.grew(move.fetch, missing)
            evict = made.relief(upcoming) if made.used > budget else ()
            for name in evict or ():
                made.gone(name)
            if evict is None and (made.held or len(made.coming) > 1):
                assert made.cannot_fit(move.fetch, missing), "then its pull is ended until it fits"
                made.not_coming(move.fetch)
            else:
                coming[move.fetch] = here
        assert disk() <= budget
        assert disk() <= made.used
        if coming and (dice.random() < 0.5 or not move.fetch):
            name = dice.choice(sorted(coming))
            del coming[name]
            made.arrived(name, in_family(int(name)))
        for name in [name for name in begun if name in made.present]:
            begun.remove(name)
            working.append(name)
            made.take(name)
        if working and dice.random() < 0.5:
            done = dice.choice(working)
            working.remove(done)
            made.release(done)
        assert disk() <= budget
