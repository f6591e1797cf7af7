"""Teachers: what turns the facts of a point, and where a model is asked also its photo, into a description.

A teacher has
    `columns` (`tuple[str]`): keys of every answer, always the same, "description" among them; every value is a string.
    `styles` (`tuple[str]`): what a [`PointQuery`] may ask of it.
    `info` (`dict`): what made the texts (models, hash of the prompts), for the dataset card; JSON can hold it.
    `__call__(queries, vocabulary)`: one dict with the keys `columns` for each [`PointQuery`]; `vocabulary` holds the names of all objects
        and parts of the sources, of which any but the point's own counts as invented. Equal queries get equal answers where the model's
        arithmetic allows it; sampling draws from the query's own seed.
"""

import base64
import hashlib
import io
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests
import torch
from PIL import Image, ImageDraw
from transformers import AutoConfig, LogitsProcessor, pipeline

from .wording import (
    COLOURS,
    HORIZONTAL,
    PLANS,
    STYLES,
    SURROUNDINGS_PLANS,
    VERTICAL,
    PointFacts,
    names_it,
    readable,
    write,
)

PROMPTS = Path(__file__).parent / "prompts"
SHOTS = 3  # worked examples shown with each question: a prompt file holds sets of so many that a small model copes with together
MOST_WORDS = 90
LONGEST_SIDE = 1024  # pixels of what a vision model is shown
LONGEST_WAIT = 300  # seconds that an endpoint may ask to be left alone before this is an error

# said of a point beyond the five steps of each axis
_STEPS = {word for step in HORIZONTAL + VERTICAL for word in step.split()} | set(
    "bottommost central centre centered corner corners half halfway horizontal leftmost lower "
    "quarter rightmost third topmost upper vertical".split()
)
_RELATIONS = set(
    "above against along alongside back behind below beneath beside between close edge edges facing front hind inside near nearby nearest "
    "opposite outside rear side sides under underneath".split()
)
_LOOKS = {word for colour in COLOURS for word in colour.split()} | set(
    "bright colored coloured grey lightly pale smooth strongly textured".split()
)
_POSES = set("flying lying resting running sitting sleeping standing walking".split())
_SIZES = set(
    "big giant huge large little long medium medium-sized short small tall tiny wide".split()
)


@dataclass(frozen=True)
class PointQuery:
    """One point to be described.

    Args:
        image (PIL RGB image)
        point (`tuple`): (x, y) in pixels of `image`.
        facts ([`PointFacts`])
        style (`str`): one of the teacher's `styles`.
        seed (`int` or tuple of `int`): for `np.random.default_rng`.
    """

    image: Image.Image = field(repr=False)
    point: tuple
    facts: PointFacts
    style: str = "full"
    seed: int | tuple = 0


def check_styles(queries, styles):
    for index, query in enumerate(queries):
        if query.style not in styles:
            raise ValueError(
                f"query {index} asks for style {query.style!r}: this teacher writes {styles}"
            )


class RuleTeacher:
    """The sentence plans of [`write`], no model. "plan" names the one that was used, as "full 3"."""

    columns = ("description", "plan")
    styles = STYLES
    info = {"teacher": "rule"}

    def __call__(self, queries, vocabulary=()):
        check_styles(queries, self.styles)
        answers = []
        for query in queries:
            plans = (SURROUNDINGS_PLANS if query.facts.object is None else PLANS)[query.style]
            number = np.random.default_rng(query.seed).integers(
                len(plans)
            )  # the draw that write() makes with the same seed
            description = write(query.facts, query.style, np.random.default_rng(query.seed))
            answers.append({"description": description, "plan": f"{query.style} {number}"})
        return answers


def ring_point(image, point):
    """A copy of `image`, shrunk to `LONGEST_SIDE` where it is larger, with a red ring in a white one around `point`, which stays free."""
    side, image = max(image.size), image.copy()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    x, y = (v * max(image.size) / side for v in point)
    radius = max(6.0, 0.035 * max(image.size))
    draw, width = ImageDraw.Draw(image), max(2, round(radius / 4))
    for r, colour in ((radius + width, "white"), (radius, "red")):
        draw.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=width)
    return image


def fading_crop(image, point, sigma=0.08):
    """The surroundings of `point`, faded to grey by exp(-d^2 / 2 sigma^2) (arXiv 2510.14583).

    Args:
        image (PIL RGB image)
        point (`tuple`): (x, y) in pixels.
        sigma (`float`): as a share of the image's longer side. The crop is a square with a side of 6 sigma, the point in its centre,
            shrunk to `LONGEST_SIDE` where it is larger; what lies outside the image is grey.
    """
    sigma = sigma * max(image.size)
    half = max(1, round(3 * sigma))
    left, top = (int(np.floor(v)) - half for v in point)
    x, y = (start + np.arange(2 * half + 1) + 0.5 for start in (left, top))
    weight = np.exp(-((y[:, None] - point[1]) ** 2 + (x[None] - point[0]) ** 2) / (2 * sigma**2))
    weight *= ((y >= 0) & (y < image.height))[:, None] & ((x >= 0) & (x < image.width))[None]
    crop = image.crop((left, top, left + 2 * half + 1, top + 2 * half + 1))
    faded = Image.composite(
        crop,
        Image.new("RGB", crop.size, (127, 127, 127)),
        Image.fromarray(np.round(255 * weight).astype(np.uint8)),
    )
    faded.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return faded


def fact_lines(facts):
    """[`PointFacts`] as the prompts hold them: a phrase a line, ready to be copied."""
    if facts.object is None:
        return f"in the {facts.in_image} of the image\n{facts.spot}"
    within = f", in the {facts.in_part} within the {facts.part}" if facts.in_part else ""
    return (
        f"a {facts.size} {facts.object} in the {facts.in_image} of the image\n"
        f"its {facts.part} at the {facts.on_object} of the {facts.object}{within}\n{facts.spot}"
    )


def read_prompt(name, folder=None):
    """A prompt file as chat messages: each starts with a line [system], [user] or [assistant]; the last one is the question.

    folder (`Path`, *optional*): that holds `name`.txt; by default the one of the teachers' prompts.
    """
    text = ((folder or PROMPTS) / f"{name}.txt").read_text(encoding="utf-8")
    blocks = re.split(r"^\[(system|user|assistant)\]\n", text, flags=re.MULTILINE)
    return [
        {"role": role, "content": content.strip()}
        for role, content in zip(blocks[1::2], blocks[2::2])
    ]


def ask(name, rng=None, image=None, folder=None, **words):
    """The chat that asks one question of a prompt file.

    Args:
        name (`str`): of the file.
        rng (`np.random.Generator`): draws the set of `SHOTS` worked examples that is shown, of which the last is filled from the first;
            not needed for a file without any.
        image (PIL image, *optional*): shown with the question.
        folder (`Path`, *optional*): as of [`read_prompt`].
        words: fill the {places} of the question.
    """
    messages = read_prompt(name, folder)
    first = 1 if messages[0]["role"] == "system" else 0
    examples = list(zip(messages[first:-1:2], messages[first + 1 : -1 : 2]))
    start = SHOTS * rng.integers(-(-len(examples) // SHOTS)) if examples else 0
    shown = [
        message
        for i in range(min(SHOTS, len(examples)))
        for message in examples[(start + i) % len(examples)]
    ]
    question = messages[-1]["content"].format(**words)
    if image is not None:
        question = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [*messages[:first], *shown, {"role": "user", "content": question}]


def prompt_hash(names, folder=None):
    """SHA-256 over the prompt files of these names. folder (`Path`, *optional*): as of [`read_prompt`]."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(((folder or PROMPTS) / f"{name}.txt").read_bytes())
    return digest.hexdigest()


def check(text, facts, vocabulary=(), seen=""):
    """Why `text` must not stand for `facts`, or None where nothing speaks against it.

    The object and the part must be named, each known position once, in its words and with its frame ("top and left of the image"), and
    nothing else may say where something is. Without `seen` the spot must be described too, and nothing else may have looks.

    Args:
        text (`str`), facts ([`PointFacts`])
        vocabulary (collection of `str`): names of objects and parts; any but the point's own counts as invented.
        seen (`str`): what a model saw; sizes, looks, poses and relations to other things in it may be told as well.
    """
    text = text.strip()
    if not text:
        return "empty"
    if len(text.split()) > MOST_WORDS:
        return f"longer than {MOST_WORDS} words"
    if "\n" in text or re.search(
        r"[\[\]{}<>|#*_]|\b(object|where|part|point|scene|detail|facts|description):",
        text,
        re.IGNORECASE,
    ):
        return "prompt echoed"
    if not re.match(r"[\"'“]?[A-Z]", text) or not re.search(r"[.!?][\"'”]?$", text):
        return "unfinished sentence"
    if found := re.search(
        r"\d|%|\b(pixels?|percent|coordinates?|rows?|columns?|grid)\b", text, re.IGNORECASE
    ):
        return f"digits or coordinates: {found[0]!r}"
    for kind, name in (("object", facts.object), ("part", facts.part)):
        if name and not names_it(text, name):
            return f"{kind} dropped: {name!r}"
    rest = text.lower()
    for place, kind, frame in (
        (facts.in_image, "of the image", "of the (?:image|photo|picture)"),
        (
            facts.on_object,
            f"of the {facts.object}",
            f"of the {re.escape(str(facts.object).lower())}",
        ),
        (
            facts.in_part,
            f"within the {facts.part}",
            f"within the {re.escape(str(facts.part).lower())}",
        ),
    ):
        if place is not None:
            down, across = place.split(" and ")
            rest, times = re.subn(
                rf"\b(?:{down} and {across}|{across} and {down}) {frame}\b", f"<{kind}>", rest
            )
            if times != 1:
                return f"position {'dropped' if times == 0 else 'repeated'}: '{place} {kind}'"
    looks = re.sub(r"^an? | spot$", "", facts.spot)
    own = sorted(
        (name.lower() for name in (facts.object, facts.part) if name), key=len, reverse=True
    )
    if facts.object:
        if (found := placed_in_image(rest, own)) not in (None, facts.object.lower()):
            return f"the object's position said of the {found}"
        thing, nouns = re.escape(facts.object.lower()), "|".join(map(re.escape, own))
        mistakes = (
            rf"\b(?:{nouns}|point|spot|photo|picture|image|which)(?: to look at)? is an? (?:[\w-]+ )?{thing}\b",
            rf"\b{thing} is (?:an? {looks}|on its|on the)\b",
        )
        if found := re.search("|".join(mistakes), rest):
            return f"mistaken: {found[0]!r}"
    if found := re.search(
        rf"(?:^|[.!?;:] )the <of the image> is an? |\b(?:has|is|on|shows|with) {looks} spot\b", rest
    ):
        return f"mistaken: {found[0]!r}"
    rest = re.sub(r"<[^>]*>", " ", rest)
    for name in own:
        rest = re.sub(rf"\b{re.escape(name)}\b", " ", rest)
    others = "|".join(
        re.escape(readable(name).lower())
        for name in sorted(vocabulary, key=lambda name: (-len(name), name))
    )
    if others and (found := re.search(rf"\b(?:{others})s?\b", rest)):
        return f"invented: {found[0]!r}"
    allowed = set(words_of(f"{facts.spot} {seen}" if seen else "")) - _STEPS
    if not seen:
        rest, times = re.subn(rf"\b{re.escape(looks)}\b", " ", rest)
        if times != 1:
            return f"spot {'dropped' if times == 0 else 'repeated'}: {looks!r}"
    if facts.size:
        allowed.add(facts.size)
    if found := sorted(
        (_STEPS | _RELATIONS | _LOOKS | _POSES | _SIZES) & set(words_of(rest)) - allowed
    ):
        return f"invented: {found[0]!r}"
    return None


def words_of(text):
    return re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())


def placed_in_image(text, names):
    """Which of `names`, "point" or "spot" the place "<of the image>" is said of: the last before it in its clause, else the first after."""
    noun = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in (*names, "point", "spot")))
    before, after = text.split("<of the image>", 1)
    if found := noun.findall(re.split(r"[.;:!?]", before)[-1]):
        return found[-1]
    found = noun.search(re.split(r"[.;:!?]", after)[0])
    return found and found[0]


class FusingTeacher:
    """What [`ModelTeacher`] and [`EndpointTeacher`] share: the questions, the check, the fallback to the rule-based text.

    With a vision model it writes style "full": the model sees the photo with the point ringed ("context") and the fading crop around it
    ("local"), and the text model fuses both with the facts. Without one it writes style "reworded" from the facts alone.
    "rule" is the rule-based text, "fused" the model's answer, and "fallback" why "description" is the former, "" where it is the latter.
    """

    def __init__(self, vision, text, at_once):
        self.vision, self.text, self.at_once = vision, text, at_once
        self.styles = ("full",) if vision else ("reworded",)
        self.columns = (
            "description",
            "rule",
            *(("context", "local") if vision else ()),
            "fused",
            "fallback",
        )
        self.prompts = (
            ("context", "local", "fuse")
            if vision
            else ("reword", "reword_within", "reword_surroundings")
        )
        self.info = {"vision": vision, "text": text, "prompts": prompt_hash(self.prompts)}

    def answer(self, model, chats, seeds):
        """Answers of the model named `model` ("vision" or "text") to `chats`, in their order; sampling draws from `seeds` (`int`s)."""
        raise NotImplementedError

    def __call__(self, queries, vocabulary=()):
        check_styles(queries, self.styles)
        rows = [{"rule": write(q.facts, "full", np.random.default_rng(q.seed))} for q in queries]
        if self.vision:
            for start in range(
                0, len(queries), self.at_once
            ):  # what the model is shown is made for a few points at a time
                self.look(queries[start : start + self.at_once], rows[start : start + self.at_once])
        chats = []
        for query, row in zip(queries, rows):
            name = "fuse" if self.vision else reword_prompt(query.facts)
            words = {
                "facts": fact_lines(query.facts),
                "context": row.get("context"),
                "local": row.get("local"),
            }
            chats.append(ask(name, np.random.default_rng(query.seed), **words))
        for query, row, text in zip(
            queries, rows, self.answer("text", chats, [model_seed(q, 2) for q in queries])
        ):
            row["fused"] = text.strip()
            seen = f"{row['context']} {row['local']}" if self.vision else ""
            row["fallback"] = check(row["fused"], query.facts, vocabulary, seen) or ""
            row["description"] = row["rule"] if row["fallback"] else row["fused"]
        return [{name: row[name] for name in self.columns} for row in rows]

    def look(self, queries, rows):
        """Adds to `rows` what the vision model says of the whole photos and of the crops."""
        for number, (name, show) in enumerate((("context", ring_point), ("local", fading_crop))):
            chats = [
                ask(
                    name,
                    np.random.default_rng(q.seed),
                    show(q.image, q.point),
                    subject=subject(q.facts),
                )
                for q in queries
            ]
            for row, text in zip(
                rows, self.answer("vision", chats, [model_seed(q, number) for q in queries])
            ):
                row[name] = " ".join(text.split())


def reword_prompt(facts):
    return (
        "reword_surroundings"
        if facts.object is None
        else "reword_within"
        if facts.in_part
        else "reword"
    )


def subject(facts):
    return (
        f"the {facts.part} of a {facts.object}" if facts.object else "a point of a thing or surface"
    )


def model_seed(query, number):
    """A seed for the `number`-th question about a query."""
    seed = query.seed if isinstance(query.seed, tuple) else (query.seed,)
    return int(np.random.SeedSequence([*seed, number]).generate_state(1)[0])


class SeededSampling(LogitsProcessor):
    """Makes the arg max of the scores a sample of softmax(scores / temperature), by Gumbel noise that each row draws from its own seed,
    so that an answer does not depend on the batch it is in."""

    def __init__(self, seeds, temperature):
        self.generators, self.temperature = (
            [torch.Generator().manual_seed(seed) for seed in seeds],
            temperature,
        )

    def __call__(self, input_ids, scores):
        noise = torch.stack(
            [
                torch.empty(scores.shape[-1]).exponential_(generator=generator)
                for generator in self.generators
            ]
        )
        return scores / self.temperature - noise.log().to(scores.device)


class ModelTeacher(FusingTeacher):
    """Models of the Hub or of local folders, through transformers pipelines. They are loaded when first asked.

    Args:
        text (`str`): chat model ("text-generation"); Hub id or folder.
        vision (`str`, *optional*): "image-text-to-text" model. Without it the text model rewords the facts alone.
        batch_size (`int`), dtype (`str` or `torch.dtype`), device_map (*optional*): as of `pipeline`.
        temperature (`float`): 0 takes the likeliest token, anything above samples.
        max_new_tokens (`int`)
    """

    def __init__(
        self,
        text,
        vision=None,
        *,
        batch_size=8,
        dtype="auto",
        device_map=None,
        temperature=0.0,
        max_new_tokens=120,
    ):
        super().__init__(vision, text, at_once=batch_size)
        self.dtype, self.device_map = dtype, device_map
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        commits = {
            name: getattr(AutoConfig.from_pretrained(name), "_commit_hash", None)
            for name in filter(None, (vision, text))
        }
        self.info = {
            "teacher": "model",
            **self.info,
            "commits": commits,
            "dtype": str(dtype),
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
        }

    def __getstate__(self):  # another process loads the models for itself
        return {name: value for name, value in self.__dict__.items() if name != "pipelines"}

    @cached_property
    def pipelines(self):
        tasks = {
            "vision": ("image-text-to-text", self.vision),
            "text": ("text-generation", self.text),
        }
        loaded = {}
        for name, (task, model) in tasks.items():
            if model:
                loaded[name] = pipeline(task, model, dtype=self.dtype, device_map=self.device_map)
                tokenizer = loaded[name].tokenizer
                tokenizer.padding_side = "left"  # answers start where the longest question ends
                tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        return loaded

    def answer(self, model, chats, seeds):
        if model == "vision":
            # this pipeline takes all other arguments for its processor's
            answers = self.pipelines[model](
                chats,
                batch_size=len(chats),
                return_full_text=False,
                generate_kwargs=self.generation(seeds),
            )
            return [answer[0]["generated_text"] for answer in answers]
        answers = [None] * len(chats)
        order = sorted(range(len(chats)), key=lambda i: str(chats[i][:-1]))
        for _, same in groupby(order, key=lambda i: str(chats[i][:-1])):  # the same worked examples
            same = list(same)
            for start in range(0, len(same), self.at_once):
                batch = same[start : start + self.at_once]
                for i, text in zip(
                    batch, self.continue_chats([chats[i] for i in batch], [seeds[i] for i in batch])
                ):
                    answers[i] = text
        return answers

    def generation(self, seeds):
        sampling = [SeededSampling(seeds, self.temperature)] if self.temperature else []
        return {
            "do_sample": False,
            "logits_processor": sampling,
            "max_new_tokens": self.max_new_tokens,
        }

    @torch.no_grad()
    def continue_chats(self, chats, seeds):
        """The text model's answers to chats of one batch; the tokens that all chats begin with run through the model once."""
        model, tokenizer = self.pipelines["text"].model, self.pipelines["text"].tokenizer
        texts = [
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            for chat in chats
        ]
        rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
        shared, width = (
            min(len(os.path.commonprefix(rows)), min(map(len, rows)) - 1),
            max(map(len, rows)),
        )
        padding = [[tokenizer.pad_token_id] * (width - len(row)) for row in rows]
        input_ids = torch.tensor(
            [row[:shared] + pad + row[shared:] for row, pad in zip(rows, padding)],
            device=model.device,
        )
        mask = torch.tensor(
            [
                [1] * shared + [0] * len(pad) + [1] * (len(row) - shared)
                for row, pad in zip(rows, padding)
            ],
            device=model.device,
        )
        cache = None
        if shared:
            cache = model(
                input_ids=input_ids[:1, :shared], use_cache=True, logits_to_keep=1
            ).past_key_values
            cache.batch_repeat_interleave(len(rows))
        generated = model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            past_key_values=cache,
            pad_token_id=tokenizer.pad_token_id,
            **self.generation(seeds),
        )
        return tokenizer.batch_decode(generated[:, width:], skip_special_tokens=True)


class EndpointError(RuntimeError):
    """An endpoint refused, or went on failing."""


class EndpointTeacher(FusingTeacher):
    """Models behind an OpenAI-compatible endpoint (vLLM's server, TGI).

    Args:
        base_url (`str`): such as "http://localhost:8000/v1"; "/chat/completions" is added.
        text (`str`), vision (`str`, *optional*): the endpoint's names of the models, as for [`ModelTeacher`]. Photos are sent as PNG.
        api_key_env (`str`, *optional*): name of the environment variable that holds the key. Without it none is sent.
        requests_per_minute (`float`, *optional*): upper limit, retries included; of each process.
        concurrent (`int`): requests under way at once.
        retries (`int`): of a request after status 429 or 5xx, a failed connection or an answer that is no chat completion; the first
            after `backoff` seconds, or as many as the server asks for, then twice as long each time.
        timeout (`float`): seconds without a byte after which a connection counts as failed.
        temperature (`float`), max_new_tokens (`int`): sent with each request.

    Calls raise [`EndpointError`] when retries are used up, or at once on any other status.
    """

    def __init__(
        self,
        base_url,
        text,
        vision=None,
        *,
        api_key_env=None,
        requests_per_minute=None,
        concurrent=8,
        retries=5,
        backoff=1.0,
        timeout=120.0,
        temperature=0.0,
        max_new_tokens=200,
    ):
        super().__init__(vision, text, at_once=4 * concurrent)
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or "@" in url.netloc or url.query:
            raise ValueError(
                "base_url must look like http://host:8000/v1, without user, password or query: a key goes into the variable "
                "that api_key_env names"
            )
        self.base_url, self.api_key_env = base_url.rstrip("/"), api_key_env
        self.concurrent, self.retries, self.backoff, self.timeout = (
            concurrent,
            retries,
            backoff,
            timeout,
        )
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.api_key()
        self.turns = Turns(60 / requests_per_minute if requests_per_minute else 0)
        self.info = {
            "teacher": "endpoint",
            **self.info,
            "base_url": self.base_url,
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
        }

    def api_key(self):
        """The key, read anew each time so that it is no part of this object; None where no variable was named."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "")
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError(
                f"the environment variable {self.api_key_env} must hold the endpoint's key, without spaces or line breaks"
            )
        return key

    def authorize(self, request):
        """For requests, which without it would look for a key in ~/.netrc."""
        if key := self.api_key():
            request.headers["Authorization"] = f"Bearer {key}"
        return request

    def answer(self, model, chats, seeds):
        with ThreadPoolExecutor(self.concurrent) as pool:
            name = self.vision if model == "vision" else self.text
            futures = [
                pool.submit(self.complete, name, chat, seed) for chat, seed in zip(chats, seeds)
            ]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(
                    wait=False, cancel_futures=True
                )  # no further requests to an endpoint that failed
                raise

    def complete(self, model, chat, seed):
        """The text that answers one chat, "" where the model gave none."""
        body = {
            "model": model,
            "messages": with_data_urls(chat),
            "temperature": self.temperature,
            "max_tokens": self.max_new_tokens,
        }
        if self.temperature:
            body["seed"] = seed
        for attempt in range(self.retries + 1):
            self.turns.wait()
            wait = self.backoff * 2**attempt
            try:
                response = requests.post(
                    f"{self.base_url}/chat/completions",
                    json=body,
                    auth=self.authorize,
                    timeout=self.timeout,
                    allow_redirects=False,
                )
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                fault = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == 200:
                    try:
                        content = response.json()["choices"][0]["message"]["content"]
                    except (ValueError, LookupError, TypeError):
                        content = response
                    if content is None or isinstance(content, str):
                        return content or ""
                    fault = f"no chat completion: {response.text[:300]}"
                else:
                    fault = f"status {response.status_code}: {response.text[:300]}"
                    if response.status_code != 429 and response.status_code < 500:
                        raise EndpointError(self.said(fault))
                    asked = response.headers.get("Retry-After", "")
                    wait = max(wait, float(asked)) if asked.isdigit() else wait
            if wait > LONGEST_WAIT:
                raise EndpointError(
                    self.said(f"{fault}; the next attempt would be in {wait:.0f} s")
                )
            if attempt < self.retries:
                time.sleep(wait)
        raise EndpointError(self.said(f"{fault}; given up after {self.retries + 1} attempts"))

    def said(self, fault):
        key = self.api_key()
        return f"{self.base_url}: {fault.replace(key, '***') if key else fault}"


class Turns:
    """Lets threads through at least `gap` seconds after one another. A copy in another process counts for itself."""

    def __init__(self, gap):
        self.gap, self.lock, self.next = gap, threading.Lock(), 0.0

    def __reduce__(self):
        return Turns, (self.gap,)

    def wait(self):
        with self.lock:
            now = time.monotonic()
            start = max(now, self.next)
            self.next = start + self.gap
        time.sleep(start - now)


def with_data_urls(chat):
    """The chat in OpenAI's form: its images as PNG in data URLs."""

    def part(content):
        if content["type"] != "image":
            return content
        buffer = io.BytesIO()
        content["image"].save(buffer, "PNG")
        return {
            "type": "image_url",
            "image_url": {
                "url": f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
            },
        }

    return [
        {
            **m,
            "content": m["content"]
            if isinstance(m["content"], str)
            else [part(c) for c in m["content"]],
        }
        for m in chat
    ]
