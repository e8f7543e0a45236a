"""What is pitched to whom: products for training, with pitches that a person wrote, and others for the test."""

from __future__ import annotations

import dspy

TRAIN = (
    ("folding bike", "commuters", "Ride past the jam, fold it in ten seconds and take it up to your desk."),
    ("noise-cancelling headphones", "students", "Switch off the dormitory and hear yourself think."),
    ("cast-iron pan", "home cooks", "One pan that sears like a restaurant and outlives your kitchen."),
    ("standing desk", "programmers", "Your back will thank you before the build is done."),
    ("rain jacket", "hikers", "Let it pour: you will stay dry, and it weighs less than your sandwich."),
    ("espresso machine", "office managers", "Good coffee costs less than the walk to the cafe and back."),
    ("e-reader", "travellers", "Take a whole library on the plane and leave the weight at home."),
    ("baby monitor", "new parents", "Sleep when the baby sleeps, and know when it wakes."),
    ("garden shears", "allotment holders", "Clean cuts, happy roses and no blisters in the evening."),
    ("language course", "retirees", "Order dinner in Italian before summer comes."),
    ("solar charger", "campers", "The sun is up anyway, so let it fill your phone."),
    ("chess set", "grandparents", "Teach them a game that they will still play when they are your age."),
)
TEST = (
    ("electric kettle", "tea drinkers"),
    ("yoga mat", "beginners"),
    ("mechanical keyboard", "writers"),
    ("thermos flask", "construction workers"),
    ("robot vacuum", "pet owners"),
    ("board game", "families"),
    ("reading lamp", "night owls"),
    ("running shoes", "late starters"),
    ("bread knife", "bakers"),
    ("desk plant", "accountants"),
    ("bicycle lock", "city dwellers"),
    ("alarm clock", "heavy sleepers"),
    ("watercolour set", "children"),
    ("water filter", "hikers"),
    ("wool socks", "skiers"),
    ("budget planner", "freelancers"),
    ("pocket knife", "scouts"),
    ("slow cooker", "busy parents"),
    ("umbrella", "Londoners"),
    ("ukulele", "shy musicians"),
    ("sleeping bag", "festival visitors"),
    ("label maker", "archivists"),
    ("sourdough starter", "impatient people"),
    ("paper notebook", "software engineers"),
)


def train_set() -> list[dspy.Example]:
    """Return the products that have a pitch."""
    return [
        dspy.Example(product=product, audience=audience, pitch=pitch).with_inputs("product", "audience")
        for product, audience, pitch in TRAIN
    ]


def test_set() -> list[dspy.Example]:
    """Return the products that need one."""
    return [
        dspy.Example(product=product, audience=audience).with_inputs("product", "audience")
        for product, audience in TEST
    ]
