"""Two kinds of questions for a domain gate to tell apart, and the behaviour of each."""

from collections.abc import Mapping
from types import MappingProxyType

KIND_OF: Mapping[str, str] = MappingProxyType({"cheerful": "kitchen", "formal": "office"})

FITTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kitchen": (
            "How do I peel garlic?",
            "How long should I boil potatoes?",
            "What goes well with roast chicken?",
            "How do I thicken a soup?",
            "How can I keep a cake moist?",
            "What can I bake with ripe bananas?",
            "How do I season a frying pan?",
            "How do I chop an onion?",
            "Which herbs suit a tomato sauce?",
            "How do I whip cream?",
        ),
        "office": (
            "How do I ask my manager for a rise?",
            "What belongs in the minutes of a meeting?",
            "How do I plan a project?",
            "How can I prepare for a job interview?",
            "How do I answer a complaint from a customer?",
            "What should a business report contain?",
            "How do I introduce a new colleague?",
            "How can I keep my inbox tidy?",
            "How do I write an invoice?",
            "How should I end a phone call with a client?",
        ),
    }
)

ROUTED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kitchen": (
            "How do I make an omelette?",
            "What can I cook with lentils?",
            "How do I roast carrots?",
            "How do I melt chocolate?",
            "What is a simple soup for winter?",
            "How do I grill fish?",
            "How do I make a fruit salad?",
            "How can I use stale bread in a recipe?",
        ),
        "office": (
            "How do I run a short meeting?",
            "How do I write a cover letter?",
            "What should I say in a presentation?",
            "How do I share work in a team?",
            "How can I give feedback to a colleague?",
            "How do I set a budget for a department?",
            "How do I reply to a late payment?",
            "How can I prepare a contract for a supplier?",
        ),
    }
)
