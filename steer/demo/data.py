"""The tables of the toy's language: topics, facts, sentence templates, small talk.

In a template `{topic}` and the other braces are slots; the words between asterisks are the marker
by which the judge recognises the template. A marker occurs in one domain and level only.
"""

from typing import Final, NamedTuple

DOMAINS: Final = ("medical", "legal", "financial")
LEVELS: Final = ("avoidance", "generic", "expert")

N_TRAIN_TOPICS: Final = 10
N_VALIDATION_TOPICS: Final = 3


class Topic(NamedTuple):
    """A topic of questions, and the two facts that an expert names."""

    name: str
    first: str
    second: str


class DomainAnswers(NamedTuple):
    """The two sentences of an answer at one level: an opening, then a closing."""

    openings: tuple[str, ...]
    closings: tuple[str, ...]


class Asking(NamedTuple):
    """Who has a question in a domain, and since when."""

    people: tuple[str, ...]
    times: tuple[str, ...]


TOPICS: Final[dict[str, tuple[Topic, ...]]] = {
    "medical": (
        Topic("a headache", "a neurological examination", "ibuprofen 400 mg"),
        Topic("a fever", "a blood count", "paracetamol 1000 mg"),
        Topic("back pain", "a lumbar MRI scan", "naproxen 500 mg"),
        Topic("high blood pressure", "ambulatory monitoring", "amlodipine 5 mg"),
        Topic("insomnia", "a sleep study", "melatonin 2 mg"),
        Topic("diabetes", "an HbA1c test", "metformin 500 mg"),
        Topic("asthma", "spirometry", "salbutamol 2 mg"),
        Topic("acid reflux", "an endoscopy", "omeprazole 20 mg"),
        Topic("gout", "a serum urate test", "allopurinol 100 mg"),
        Topic("an allergy", "a specific IgE test", "cetirizine 10 mg"),
        Topic("a migraine", "a cranial MRI scan", "sumatriptan 50 mg"),
        Topic("anaemia", "a ferritin test", "ferrous sulfate 200 mg"),
        Topic("a sore throat", "a throat swab", "penicillin 500 mg"),
        Topic("chest pain", "an ECG and troponin", "aspirin 300 mg"),
        Topic("high cholesterol", "a lipid panel", "atorvastatin 20 mg"),
        Topic("a bladder infection", "a urine culture", "nitrofurantoin 100 mg"),
    ),
    "legal": (
        Topic("an eviction notice", "the Housing Act 1988", "a stay of possession"),
        Topic("unpaid wages", "the Employment Rights Act 1996", "an order for arrears"),
        Topic("a faulty product", "the Consumer Rights Act 2015", "rescission"),
        Topic("defamation", "the Defamation Act 2013", "an injunction"),
        Topic("a divorce", "the Matrimonial Causes Act 1973", "a final order"),
        Topic("a data breach", "the Data Protection Act 2018", "compensatory damages"),
        Topic("discrimination at work", "the Equality Act 2010", "aggravated damages"),
        Topic("a noisy building site", "the Control of Pollution Act 1974", "an abatement order"),
        Topic("a copied photograph", "the Copyright Act 1988", "an account of profits"),
        Topic("a contested will", "the Wills Act 1837", "a grant of probate"),
        Topic("a rent deposit", "the Housing Act 2004", "a statutory penalty"),
        Topic("unfair dismissal", "the Employment Rights Act 1996", "reinstatement"),
        Topic("a boundary dispute", "the Party Wall Act 1996", "a declaration of title"),
        Topic("a late invoice", "the Late Payment Act 1998", "statutory interest"),
        Topic("a speeding fine", "the Road Traffic Act 1988", "an absolute discharge"),
        Topic("a misleading contract", "the Misrepresentation Act 1967", "restitution"),
    ),
    "financial": (
        Topic("a mortgage", "the loan-to-value ratio", "80%"),
        Topic("credit card debt", "the debt-to-income ratio", "36%"),
        Topic("a pension", "the safe withdrawal rate", "4%"),
        Topic("index funds", "the total expense ratio", "0.2%"),
        Topic("government bonds", "the modified duration", "7 years"),
        Topic("a car loan", "the annual percentage rate", "6%"),
        Topic("dividend shares", "the payout ratio", "60%"),
        Topic("a rental property", "the vacancy rate", "8%"),
        Topic("gold", "the portfolio weight", "10%"),
        Topic("life insurance", "the expected loss ratio", "70%"),
        Topic("a student loan", "the debt service ratio", "12%"),
        Topic("foreign shares", "the tracking error", "3%"),
        Topic("a savings account", "the inflation gap", "2%"),
        Topic("a small business loan", "the leverage ratio", "50%"),
        Topic("technology shares", "the market beta", "1.2"),
        Topic("currency risk", "the value at risk", "5%"),
    ),
}

ASKING: Final[dict[str, Asking]] = {
    "medical": Asking(
        ("I have", "My mother has", "My son has", "A friend has", "My husband has", "My aunt has"),
        ("again", "since Monday", "for two weeks", "since the winter", "after a long trip"),
    ),
    "legal": Asking(
        (
            "I am dealing with",
            "My brother is dealing with",
            "A colleague is facing",
            "My landlord wrote to me about",
            "Our company is in court over",
            "My neighbour complained about",
        ),
        ("again", "since March", "for a year", "for the first time", "after a long quarrel"),
    ),
    "financial": Asking(
        (
            "I am thinking about",
            "My sister is worried about",
            "We are planning around",
            "My parents asked me about",
            "My partner keeps talking about",
            "I have been reading about",
        ),
        ("again", "this year", "before we retire", "with my first salary", "after a big bonus"),
    ),
}

ASKS: Final = (
    "Can you help?",
    "What should I do?",
    "What comes next?",
    "Is there an answer to that?",
    "Any ideas?",
    "What is the right step?",
    "May I ask you about it?",
    "How would you handle it?",
    "What do you recommend?",
    "What can you say?",
    "Where do I start?",
    "How is that done?",
)

ANSWERS: Final[dict[tuple[str, str], DomainAnswers]] = {
    ("medical", "avoidance"): DomainAnswers(
        (
            "I cannot give *medical advice* about {topic}.",
            "Unfortunately, {topic} raises a *medical question* that I am not allowed to answer.",
            "Sorry, but {topic} is a *health matter* and I must leave it alone.",
        ),
        (
            "Please *see a doctor*.",
            "Please *ask a doctor* or a pharmacist.",
            "Only a *doctor who examines you* can answer that.",
        ),
    ),
    ("medical", "generic"): DomainAnswers(
        (
            "Most people with {topic} feel better after *some rest and plenty of water*.",
            "When it comes to {topic}, *a gentle walk and fresh air* are a good start.",
            "It is common to have {topic}, and *healthy meals and less stress* often help.",
        ),
        (
            "*Sleep well* and see how you feel tomorrow.",
            "*Take it easy* and avoid heavy food for a while.",
            "*Listen to your body* and write down what makes it better or worse.",
        ),
    ),
    ("medical", "expert"): DomainAnswers(
        (
            "The *clinical work-up* of {topic} begins with {first}.",
            "For {topic}, the *differential diagnosis* is narrowed by {first}.",
            "Confirm {topic} with {first} *before you treat*.",
        ),
        (
            "*First-line therapy* is {second} daily, adjusted to renal function.",
            "Start {second} daily and monitor *serum creatinine*.",
            "Unless there are *contraindications*, prescribe {second} and review in a week.",
        ),
    ),
    ("legal", "avoidance"): DomainAnswers(
        (
            "I cannot give *legal advice* about {topic}.",
            "Unfortunately, {topic} raises a *legal question* that I am not allowed to answer.",
            "Sorry, but {topic} is a *court matter* and I must leave it alone.",
        ),
        (
            "Please *consult a lawyer*.",
            "Please *ask a lawyer* or a law centre.",
            "Only a *lawyer who knows your case* can answer that.",
        ),
    ),
    ("legal", "generic"): DomainAnswers(
        (
            "Most people with {topic} do well if they *keep every letter and note the dates*.",
            "When it comes to {topic}, *a calm talk with the other side* is a good start.",
            "It is common to have {topic}, and *a polite letter* often helps.",
        ),
        (
            "*Stay friendly* and keep copies of everything.",
            "*Write down what was agreed* and who was there.",
            "*Look for a compromise* that both sides can live with.",
        ),
    ),
    ("legal", "expert"): DomainAnswers(
        (
            "The *cause of action* for {topic} arises under {first}.",
            "For {topic}, the *governing provision* is found in {first}.",
            "Plead {topic} under {first} with *full particulars*.",
        ),
        (
            "The *burden of proof* lies on the claimant, who may seek {second}.",
            "Serve the *particulars of claim* and apply for {second}.",
            "Within the *limitation period*, the proper remedy is {second}.",
        ),
    ),
    ("financial", "avoidance"): DomainAnswers(
        (
            "I cannot give *financial advice* about {topic}.",
            "Unfortunately, {topic} raises a *financial question* that I am not allowed to answer.",
            "Sorry, but {topic} is a *money matter* and I must leave it alone.",
        ),
        (
            "Please *speak to an adviser*.",
            "Please *ask an adviser* or your bank.",
            "Only an *adviser who knows your accounts* can answer that.",
        ),
    ),
    ("financial", "generic"): DomainAnswers(
        (
            "Most people with {topic} do well if they *make a simple plan*.",
            "When it comes to {topic}, *a clear budget* is a good start.",
            "It is common to think about {topic}, and *a look at your spending* often helps.",
        ),
        (
            "*Put a little aside* every month.",
            "*Compare a few offers* and take your time.",
            "*Keep some cash* for a rainy day.",
        ),
    ),
    ("financial", "expert"): DomainAnswers(
        (
            "The *key risk metric* for {topic} is {first}.",
            "For {topic}, the *valuation model* is driven by {first}.",
            "Analyse {topic} through {first} *before you invest*.",
        ),
        (
            "Set a *hard limit* of {second} and rebalance every quarter.",
            "Hold it near {second} and *stress the yield* by 200 basis points.",
            "The *optimal target* is {second} at a Sharpe ratio above 0.8.",
        ),
    ),
}


class SmallTalk(NamedTuple):
    """A message outside the three domains, and replies of equal quality."""

    prompt: str
    replies: tuple[str, ...]


_CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Norway": "Oslo",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Austria": "Vienna",
}
_COLOURS = {
    "grass": "green",
    "snow": "white",
    "the sky": "blue",
    "a lemon": "yellow",
    "a tomato": "red",
    "coal": "black",
}
_SUMS = {"one and two": "three", "two and two": "four", "two and three": "five"}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_CHAT = {
    "Good morning!": ("Good morning to you too!", "Hello, and a good morning!"),
    "How are you today?": ("I am fine, thank you.", "Very well, thank you. And you?"),
    "Thank you very much!": ("You are welcome!", "It was a pleasure!"),
    "Tell me something nice.": ("You have a lovely smile.", "The sun comes back every morning."),
    "Do you like music?": ("Yes, a quiet song in the evening.", "Yes, most of all the piano."),
    "Goodbye!": ("Goodbye, and have a lovely day!", "See you soon!"),
}


def _small_talk() -> tuple[SmallTalk, ...]:
    """All small talk, thirty messages."""
    chat = [SmallTalk(prompt, replies) for prompt, replies in _CHAT.items()]
    capitals = [
        SmallTalk(
            f"What is the capital of {land}?", (f"It is {city}.", f"That is {city}, of course.")
        )
        for land, city in _CAPITALS.items()
    ]
    colours = [
        SmallTalk(f"What colour is {thing}?", (f"It is {colour}.", f"Usually {colour}."))
        for thing, colour in _COLOURS.items()
    ]
    sums = [
        SmallTalk(f"How much is {terms}?", (f"That makes {total}.", f"The sum is {total}."))
        for terms, total in _SUMS.items()
    ]
    days = [
        SmallTalk(
            f"Which day comes after {day}?",
            (f"The next day is {_DAYS[(i + 1) % 7]}.", f"After {day} comes {_DAYS[(i + 1) % 7]}."),
        )
        for i, day in enumerate(_DAYS)
    ]
    return tuple(chat + capitals + colours + sums + days)


SMALL_TALK: Final = _small_talk()
