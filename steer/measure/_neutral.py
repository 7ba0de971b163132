"""Prompts of no particular domain, on which steering should change little."""

NEUTRAL_PROMPTS: tuple[str, ...] = (
    "What is a good way to spend a rainy afternoon?",
    "Describe the colours of a sunset.",
    "How do I boil an egg?",
    "Tell me a short story about a lighthouse.",
    "What makes a good cup of tea?",
    "Name three things that float on water.",
    "How is bread made?",
    "Why do leaves change colour in autumn?",
    "What would you pack for a day at the beach?",
    "Explain how a bicycle stays upright.",
    "Write two sentences about a quiet street.",
    "What sounds can be heard in a forest?",
    "How do birds find their way?",
    "Suggest a name for a small brown dog.",
    "What is the difference between a lake and a pond?",
    "Describe your favourite kind of weather.",
)
