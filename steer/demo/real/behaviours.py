"""Behaviours that show in the text, as short preference pairs written for this project.

Each pair answers an everyday question with one tip, in the style wanted and in the opposite one.
Training and held-out pairs share no question and no template, and `ASKED` is in neither.
"""

from steer.demo.real.rules import judge
from steer.demo.real.templates import HELD_OUT, MADE_FROM, Templates
from steer.pairs import Pair, Pairs

__all__ = ["ASKED", "BEHAVIOURS", "TIPS", "TRAINING", "held_out", "judge", "pairs"]

TIPS: tuple[tuple[str, str], ...] = (
    ("How do I boil an egg?", "Put it into boiling water for eight minutes."),
    ("How do I water a cactus?", "Water it once the soil is dry."),
    ("How do I fix a flat tyre?", "Take the tube out and glue a patch on the hole."),
    ("What can I cook with rice?", "Fry it with an egg and some vegetables."),
    ("How do I clean a window?", "Wipe it with vinegar and a dry cloth."),
    ("How can I fall asleep faster?", "Go to bed at the same time every night."),
    ("How do I start a letter?", "Write the date and a short greeting."),
    ("How do I paint a wall?", "Tape the edges and roll from top to bottom."),
    ("What is a quick breakfast?", "Mix oats with milk and a sliced apple."),
    ("How do I teach a dog to sit?", "Hold a treat above its nose and wait."),
    ("How do I save water at home?", "Take short showers and fix dripping taps."),
    ("How do I sharpen a knife?", "Draw it along a wet stone at a low angle."),
    ("How do I bake bread?", "Knead flour, water, salt and yeast, and let it rise."),
    ("How do I plant tomatoes?", "Set them deep in the soil in a sunny place."),
    ("What should I take on a hike?", "Carry water, a map and a warm jacket."),
    ("How do I remove a coffee stain?", "Dab it with cold water and soap."),
    ("How can I learn new words?", "Write five of them on a card every day."),
    ("How do I store potatoes?", "Keep them in a dark and cool box."),
    ("How do I tie a scarf?", "Fold it in half and pull the ends through."),
    ("How do I choose a melon?", "Knock on it and listen for a hollow sound."),
    ("How can I read more books?", "Keep one beside your bed."),
    ("How do I light a fire?", "Stack thin sticks loosely over dry paper."),
    ("How do I hang a picture?", "Mark the spot and drive a nail at an angle."),
    ("How do I keep bread fresh?", "Wrap it in a cloth and keep it in a box."),
    ("How do I wash a wool jumper?", "Use cold water and dry it flat."),
    ("How do I train for a long run?", "Add one kilometre every week."),
    ("How do I make a salad dressing?", "Shake oil, vinegar and a little mustard."),
    ("How do I pack a suitcase?", "Roll the clothes and put shoes at the bottom."),
    ("How do I get rid of ants?", "Close the gaps and wipe their path with lemon."),
    ("How do I sew on a button?", "Go through every hole four times and knot the thread."),
)

ASKED: tuple[str, ...] = (
    "How do I fold a napkin?",
    "How can I learn to whistle?",
    "What should I cook for guests?",
    "How do I fly a kite?",
    "How do I clean my shoes?",
    "What is a good gift for a friend?",
    "How do I cook pasta?",
    "How can I remember names?",
    "How do I ride a bicycle?",
    "How do I make a snowman?",
    "How do I care for a houseplant?",
    "What can I do on a rainy day?",
    "How do I make pancakes?",
    "How do I wrap a present?",
    "How do I build a bookshelf?",
    "How can I save money on food?",
    "How do I draw a cat?",
    "How do I organise a picnic?",
    "How do I grow herbs indoors?",
    "How do I start jogging?",
)

BEHAVIOURS = tuple(MADE_FROM)
_TRAIN = 18  # questions that vectors are made from; the others are held out
TRAINING = 2 * _TRAIN  # pairs of each behaviour


def pairs(behaviour: str) -> Pairs:
    """Return the 36 pairs that a vector is made from.

    Args:
        behaviour: One of `BEHAVIOURS`.
    """
    return _pairs(TIPS[:_TRAIN], MADE_FROM[behaviour], behaviour)


def held_out(behaviour: str) -> Pairs:
    """Return the 24 pairs that a vector is chosen and tested with.

    Args:
        behaviour: One of `BEHAVIOURS`.
    """
    return _pairs(TIPS[_TRAIN:], HELD_OUT[behaviour], behaviour)


def _pairs(tips: tuple[tuple[str, str], ...], templates: Templates, behaviour: str) -> Pairs:
    """Return two pairs of each question, with templates in turn."""
    n = len(templates)
    return Pairs.of(
        Pair(question, chosen.format(tip, question=question), rejected.format(tip), behaviour)
        for k, (question, tip) in enumerate(tips)
        for chosen, rejected in (templates[k % n], templates[(k + 1) % n])
    )
