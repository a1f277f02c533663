"""The byte budget: one sum, one word to all holders when it is spent and when it is not any more."""

from forwarder.wire.budget import ByteBudget


class Holder:
    def __init__(self, budget):
        self.heard = []
        self.share = budget.share(lambda: self.heard.append(budget.spent))


def test_everybody_hears_when_it_is_spent_and_when_there_is_room_again():
    """Also those who hold nothing: they must not read either."""
    budget = ByteBudget(100)
    one, two, idle = Holder(budget), Holder(budget), Holder(budget)
    one.share.resize(60)
    two.share.resize(40)
    assert not budget.spent
    two.share.resize(41)
    assert budget.spent
    two.share.resize(20)
    assert budget.spent  # 80 of 100: not yet, or all of them would flutter
    two.share.resize(15)
    assert not budget.spent
    assert one.heard == two.heard == idle.heard == [True, False]


def test_a_holder_that_leaves_gives_everything_back_and_hears_nothing_more():
    """Closing is the last word."""
    budget = ByteBudget(100)
    one, two = Holder(budget), Holder(budget)
    one.share.resize(200)
    one.share.close()
    assert budget.used_bytes == 0
    assert one.heard == [True]
    assert two.heard == [True, False]


def test_a_holder_may_resize_while_it_is_told():
    """What it frees then counts."""
    budget = ByteBudget(100)
    one = Holder(budget)
    big = budget.share(lambda: big.resize(0) if budget.spent else None)
    big.resize(90)
    one.share.resize(50)
    assert budget.used_bytes == 50
    assert not budget.spent
