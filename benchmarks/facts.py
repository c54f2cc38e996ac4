"""Prompts whose context says otherwise than what a language model has read: made of facts and templates.

Each fact is told with the object of another fact of its kind, in three ways; the prompt ends where the object comes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

# By relation: the statement up to its object, a question, the statement the other way round, and the facts.
RELATIONS: Mapping[str, tuple[str, str, str, str]] = {
    "capital": (
        "The capital of {subject} is",
        "What is the capital of {subject}?",
        "{object} is the capital of {subject}.",
        "France: Paris; Japan: Tokyo; Germany: Berlin; Italy: Rome; Spain: Madrid; Russia: Moscow; China: Beijing; "
        "Egypt: Cairo; Greece: Athens; Portugal: Lisbon; Austria: Vienna; Poland: Warsaw; Norway: Oslo; "
        "Sweden: Stockholm; Denmark: Copenhagen; Finland: Helsinki; Ireland: Dublin; Hungary: Budapest; Cuba: Havana; "
        "Peru: Lima; Chile: Santiago; Canada: Ottawa; Turkey: Ankara; Iran: Tehran; Iraq: Baghdad; Thailand: Bangkok; "
        "Vietnam: Hanoi; Kenya: Nairobi; Belgium: Brussels; Ukraine: Kyiv",
    ),
    "language": (
        "The main language of {subject} is",
        "Which language do most people speak in {subject}?",
        "{object} is the main language of {subject}.",
        "Brazil: Portuguese; Mexico: Spanish; Austria: German; Egypt: Arabic; Japan: Japanese; Italy: Italian; "
        "Greece: Greek; Russia: Russian; Turkey: Turkish; Poland: Polish; Sweden: Swedish; Finland: Finnish; "
        "France: French; England: English; Hungary: Hungarian; Vietnam: Vietnamese; Thailand: Thai; Norway: Norwegian",
    ),
    "currency": (
        "The currency of {subject} is the",
        "What is the currency of {subject}?",
        "The {object} is the currency of {subject}.",
        "Japan: yen; India: rupee; Russia: ruble; China: yuan; Mexico: peso; Brazil: real; Switzerland: franc; "
        "Sweden: krona; Thailand: baht; South Korea: won; Israel: shekel; Poland: zloty; Turkey: lira; "
        "South Africa: rand; Vietnam: dong; England: pound",
    ),
    "colour": (
        "The colour of {subject} is",
        "What is the colour of {subject}?",
        "{object} is the colour of {subject}.",
        "the clear sky: blue; fresh grass: green; fresh snow: white; blood: red; a ripe banana: yellow; coal: black; "
        "an elephant: gray; chocolate: brown; a carrot: orange; a violet: purple; a flamingo: pink",
    ),
    "birthplace": (
        "{subject} was born in",
        "Where was {subject} born?",
        "{object} is where {subject} was born.",
        "Albert Einstein: Germany; Wolfgang Amadeus Mozart: Austria; Marie Curie: Poland; Pablo Picasso: Spain; "
        "William Shakespeare: England; Leonardo da Vinci: Italy; Mahatma Gandhi: India; Nelson Mandela: South Africa; "
        "Confucius: China; Vladimir Lenin: Russia; Vincent van Gogh: the Netherlands; Fidel Castro: Cuba; "
        "Napoleon Bonaparte: Corsica; Hans Christian Andersen: Denmark; Alfred Nobel: Sweden; "
        "Abraham Lincoln: Kentucky",
    ),
    "author": (
        "The author of {subject} is",
        "Who is the author of {subject}?",
        "{object} is the author of {subject}.",
        "Hamlet: William Shakespeare; Pride and Prejudice: Jane Austen; Oliver Twist: Charles Dickens; "
        "War and Peace: Leo Tolstoy; Don Quixote: Miguel de Cervantes; Harry Potter: J.K. Rowling; "
        "The Lord of the Rings: J.R.R. Tolkien; Animal Farm: George Orwell; The Odyssey: Homer; "
        "The Great Gatsby: F. Scott Fitzgerald; Moby-Dick: Herman Melville; Frankenstein: Mary Shelley; "
        "Dracula: Bram Stoker; The Divine Comedy: Dante; Faust: Goethe; The Trial: Franz Kafka",
    ),
}
# The context, and what follows it; both end as the answer begins.
TEMPLATES: Mapping[str, tuple[str, str]] = {
    "stated": ("{statement} {object}.\n", "{statement}"),
    "paraphrased": ("{paraphrase}\n", "Question: {question}\nAnswer: {statement}"),
    "beside what is believed": (
        "Many people believe this: {statement} {believed}. But in this story it is otherwise: {paraphrase}\n",
        "In this story, {lower}",
    ),
}


@dataclass(frozen=True)
class Prompt:
    """One prompt: `context + question`; what its context says, and what a model that knows the fact would say."""

    template: str
    relation: str
    subject: str
    context: str
    question: str
    told: str
    believed: str


def prompts(seed: int = 0) -> list[Prompt]:
    """Return every fact in every template; which other object a fact is told with is the seed's."""
    found = []
    for relation, (statement, question, paraphrase, facts) in RELATIONS.items():
        known = [tuple(fact.split(": ")) for fact in facts.split("; ")]
        for (subject, believed), told in zip(known, _others([fact[1] for fact in known], seed), strict=True):
            words = {"subject": subject, "object": told, "believed": believed}
            words["statement"], words["question"] = _begun(statement.format(**words)), question.format(**words)
            words["paraphrase"] = _begun(paraphrase.format(**words))
            words["lower"] = (
                words["statement"] if words["statement"].startswith(subject) else _small(words["statement"])
            )
            for name, (context, asks) in TEMPLATES.items():
                own = context.format(**words), asks.format(**words)
                found.append(Prompt(name, relation, subject, *own, told, believed))
    return found


def verdict(answer: str, told: str, believed: str) -> str:
    """Say which of the two an answer names first, by its last word: "context", "memory", or "neither"."""
    places = {}
    for name, words in (("context", told), ("memory", believed)):
        place = re.search(rf"\b{re.escape(words.split()[-1])}\b", answer, re.I)
        if place is not None:
            places[name] = place.start()
    return min(places, key=lambda name: places[name]) if places else "neither"


def _others(objects: list[str], seed: int) -> list[str]:
    """Return the objects in another order, none at its own place."""
    order = list(range(len(objects)))
    random.Random(seed).shuffle(order)
    after = {one: order[(i + 1) % len(order)] for i, one in enumerate(order)}
    return [objects[after[i]] for i in range(len(objects))]


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]
