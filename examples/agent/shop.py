"""A shop's assistant: two steps of an LM choose a tool and what to ask it, the tool is used, a third step answers."""

from __future__ import annotations

from typing import Literal

import dspy

PRICES = {"bread": 3.2, "cheese": 7.4, "honey": 6.0, "rice": 2.3, "tea": 4.1}
STOCK = {"bread": 0, "cheese": 3, "honey": 1, "rice": 40, "tea": 9}
TOOLS = {"price": PRICES.__getitem__, "stock": STOCK.__getitem__}

Product = Literal["bread", "cheese", "honey", "rice", "tea"]


class ChooseTool(dspy.Signature):
    """Which tool answers the question: price, or stock (how many are left)?"""

    question: str = dspy.InputField()
    tool: Literal["price", "stock"] = dspy.OutputField()


class ChooseProduct(dspy.Signature):
    """Which product is the question about?"""

    question: str = dspy.InputField()
    product: Product = dspy.OutputField()


class Say(dspy.Signature):
    """Answer in one short sentence with what the tool found."""

    question: str = dspy.InputField()
    found: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Assistant(dspy.Module):
    """Answers a customer with the shop's tools."""

    def __init__(self) -> None:
        super().__init__()
        self.choose_tool = dspy.Predict(ChooseTool)
        self.choose_product = dspy.Predict(ChooseProduct)
        self.say = dspy.Predict(Say)

    def forward(self, question: str) -> dspy.Prediction:
        """Return a prediction with the `tool`, what it `found`, and an `answer` that says so."""
        tool = self.choose_tool(question=question).tool
        product = self.choose_product(question=question).product
        found = f"{TOOLS[tool](product):g}"
        return dspy.Prediction(tool=tool, found=found, answer=self.say(question=question, found=found).answer)


TRAIN = (
    ("What does honey cost?", "price", "honey", "It costs 6."),
    ("How much rice is left?", "stock", "rice", "There are 40 left."),
    ("How much is the cheese?", "price", "cheese", "It costs 7.4."),
    ("Are there any loaves of bread?", "stock", "bread", "There are 0 left."),
    ("What is the price of tea?", "price", "tea", "It costs 4.1."),
    ("How many jars of honey do you have?", "stock", "honey", "There is 1 left."),
)
TEST = (
    ("What does bread cost?", "price", "bread"),
    ("How many packets of tea are left?", "stock", "tea"),
    ("Is the rice expensive?", "price", "rice"),
    ("Do you have cheese?", "stock", "cheese"),
    ("How much do I pay for tea?", "price", "tea"),
    ("Is any bread left?", "stock", "bread"),
    ("How many bags of rice do you have?", "stock", "rice"),
    ("What is the price of honey?", "price", "honey"),
)


def train_set() -> list[dspy.Example]:
    """Return the questions of which each step is known."""
    return [
        dspy.Example(
            question=question, tool=tool, product=product, found=f"{TOOLS[tool](product):g}", answer=answer
        ).with_inputs("question")
        for question, tool, product, answer in TRAIN
    ]


def test_set() -> list[dspy.Example]:
    """Return the questions of which it is known what a tool has to find."""
    return [
        dspy.Example(question=question, found=f"{TOOLS[tool](product):g}").with_inputs("question")
        for question, tool, product in TEST
    ]
