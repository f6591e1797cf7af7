"""Which texts are English, and which cannot be descriptions."""

import json
import os
from pathlib import Path

import pytest

from hf_talking_points.data.language import MOST_WORDS, fault_of_text, is_english


@pytest.mark.parametrize(
    "text",
    [
        "Upper edge of the black dog's back, right of the collar, against the chair.",
        "hoof",
        "dog nose",
        "THE LEFT EYE",
        "yellow van",
        "The cow’s rump, where Ramses' Schloss poster begins",
    ],
)
def test_english_texts_are_english(text):
    assert is_english(text)


@pytest.mark.parametrize(
    "text",
    [
        "Das linke Auge des braunen Hundes",
        "Ohr des Hundes unter dem Tisch",
        "Le point est sur l'oreille gauche du chien, près du bord.",
        "nez du chat noir",
        "La oreja izquierda del perro, junto al collar rojo",
        "L'orecchio sinistro del cane, vicino al collare",
        "A orelha esquerda do cão, perto da coleira vermelha",
        "Het linkeroor van de hond, net boven de halsband",
        "in het water onder de boot",
        "Hundens venstre øre, lige over halsbåndet",
        "Hundens vänstra öra, precis ovanför halsbandet",
        "Lewe ucho psa, tuż nad obrożą",
        "Koiran vasen korva, juuri pannan yläpuolella",
        "Köpeğin sol kulağı, tasmanın hemen üstünde",
        "telinga kiri anjing di atas kalung",
        "Левое ухо собаки",
        "左耳の先端",
        "asdf qwer zxcv uiop",
        "lorem ipsum dolor sit amet consectetur",
        "12 34",
    ],
)
def test_other_languages_and_gibberish_are_not(text):
    assert not is_english(text)
    assert "is not English" in fault_of_text(text)


def test_empty_and_endless_texts_are_no_descriptions():
    assert fault_of_text(" \n") == "is empty"
    assert fault_of_text("the eye " * (MOST_WORDS // 2)) is None
    assert "301 words: expected at most 300" in fault_of_text("eye " * 301)


def test_no_text_of_the_data_is_taken_for_another_language():
    folder = os.environ.get("TALKING_POINTS_DATA")
    if folder is None:
        pytest.skip("TALKING_POINTS_DATA names no folder with texts.jsonl files")
    texts = []
    for file in sorted(Path(folder).glob("*/texts.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            texts.extend(json.loads(line)["texts"].values())
    assert texts
    assert [text for text in texts if fault_of_text(text)] == []
