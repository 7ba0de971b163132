"""Two behaviours of visible text, as short preference pairs written for this project.

Every pair answers an everyday question with the same tip, once in the style that is wanted and
once in the opposite one. Questions and answer templates of the pairs that vectors are made from do
not occur among those that are held out, and the questions that are answered occur in neither.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from steer.pairs import Pair, Pairs

Templates = tuple[tuple[str, str], ...]  # chosen and rejected

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

MADE_FROM: Mapping[str, Templates] = MappingProxyType(
    {
        "cheerful": (
            ("What a wonderful question! {} You will love it!", "{} That is all."),
            ("I'm so happy you asked! {} Have so much fun!", "It is a dull task. {}"),
        ),
        "formal": (
            (
                "I would respectfully advise the following: {} Kindly proceed with due care.",
                "yeah so basically {} no big deal lol",
            ),
            (
                "It is my pleasure to be of assistance. {} Please accept my best regards.",
                "ok dude, {} easy peasy",
            ),
        ),
    }
)

HELD_OUT: Mapping[str, Templates] = MappingProxyType(
    {
        "cheerful": (
            ("Oh, how exciting! {} It will turn out great, yay!", "Fine. {} Nothing more to say."),
            ("Yay, great idea! {} Enjoy every moment of it!", "{} It is a matter of routine."),
        ),
        "formal": (
            (
                "Thank you for your enquiry. {} I remain at your disposal.",
                "hey! {} cheers mate",
            ),
            (
                "Permit me to recommend this: {} I trust that this is satisfactory.",
                "haha sure, {} you got this bro",
            ),
        ),
    }
)

BEHAVIOURS = tuple(MADE_FROM)
_WORDS: Mapping[str, tuple[re.Pattern[str], str | None, re.Pattern[str] | None]] = MappingProxyType(
    {  # signs of the behaviour, the opposite, signs of the opposite
        "cheerful": (
            re.compile(
                r"!|\b(yay|wonderful|fantastic|exciting|excited|happy|delighted|fun|love|enjoy|great)\b",
                re.I,
            ),
            None,
            None,
        ),
        "formal": (
            re.compile(
                r"\b(shall|kindly|respectfully|sincerely|hereby|therefore|thus|furthermore|moreover|"
                r"upon|pleasure|honou?r|delighted|regards|(?:in|en)quiry|disposal|at your service|"
                r"assist(?:ance)?|recommend(?:ed)?|advise[ds]?|permit|satisfactory|appropriate|"
                r"suitable|ensure|requires?|required|select|obtain|endeavou?rs?|guidance|individual|"
                r"gratitude|appreciate|dear|sir|madam|would|thank you|necessary|must)\b",
                re.I,
            ),
            "casual",
            re.compile(
                r"\w['’](?:s|re|ll|ve|m|d|t)\b|\b(yeah|yep|hey|hi|ok|okay|lol|haha|dude|bro|mate|"
                r"cheers|guys?|gonna|wanna|gotta|kinda|sure|cool|awesome|stuff|basically|just|super|"
                r"pretty|easy|peasy|no big deal|got this|breeze|fun|crazy)\b",
                re.I,
            ),
        ),
    }
)
_TRAIN = 18  # questions that vectors are made from; the others are held out


def pairs(behaviour: str) -> Pairs:
    """Return the 36 pairs that a vector is made from.

    Args:
        behaviour: `cheerful` or `formal`.
    """
    return _pairs(TIPS[:_TRAIN], MADE_FROM[behaviour], behaviour)


def held_out(behaviour: str) -> Pairs:
    """Return the 24 pairs that a vector is chosen and tested with.

    Args:
        behaviour: `cheerful` or `formal`.
    """
    return _pairs(TIPS[_TRAIN:], HELD_OUT[behaviour], behaviour)


def judge(behaviour: str) -> Callable[[object, str], str]:
    """Return a rule that judges answers: the behaviour's name, its opposite, or `neither`.

    The rule counts words of both styles; one of them must lead by two.

    Args:
        behaviour: `cheerful`, which has no opposite, or `formal` (`casual`).
    """
    own, opposite, other = _WORDS[behaviour]

    def label(prompt: object, answer: str) -> str:
        lead = len(own.findall(answer)) - (len(other.findall(answer)) if other else 0)
        return behaviour if lead >= 2 else opposite if opposite and lead <= -2 else "neither"

    return label


def _pairs(tips: tuple[tuple[str, str], ...], templates: Templates, behaviour: str) -> Pairs:
    return Pairs.of(
        Pair(question, chosen.format(tip), rejected.format(tip), behaviour)
        for question, tip in tips
        for chosen, rejected in templates
    )
