"""The paper's tables: what is trained for them, and how the protocol's samples become rows."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from example_scripts import load_example, option_names

from hf_talking_points import MINI_LOCALIZER


@pytest.fixture(scope="module")
def tables():
    return load_example("paper_tables")


@pytest.fixture
def make_args(tables, tmp_path):
    def make(table, **options):
        return tables.TableArguments(table, ["DATA"], str(tmp_path), **options)

    return make


def test_unknown_tables_are_refused(tables):
    with pytest.raises(ValueError, match="table must be one of .*, got 'side'"):
        tables.TableArguments("side", ["DATA"])


@pytest.mark.parametrize("table", ["main", "masks", "llm", "heads"])
def test_every_table_has_a_row_to_compare_with(tables, table):
    assert tables.REFERENCES[table] in tables.TABLES[table]


def words_of(command):
    """Options of a command line: name -> its words."""
    options = {}
    for word in command:
        if word.startswith("--"):
            name = word.removeprefix("--")
            options[name] = []
        else:
            options[name].append(word)
    return options


@pytest.mark.parametrize("table", ["main", "masks", "llm", "heads"])
def test_trainings_use_only_options_that_their_scripts_have(
    tables, make_args, monkeypatch, tmp_path, table
):
    commands = []
    monkeypatch.setattr(
        tables,
        "run_script",
        lambda script, words, log: commands.append((script, words)),
    )
    monkeypatch.setattr(tables, "save_first_layers", lambda layers, folder: None)
    args = make_args(table, seeds=[3, 4])
    trained = tables.train_rows(args, tables.load_options(args))
    assert len(commands) == 2 * len(trained)
    assert (tmp_path / "backbone" / "config.json").is_file()
    for file, words in commands:
        script = load_example(file.stem)
        options = words_of(words)
        assert options["data_dir"] == ["DATA"]
        assert options["seed"] == options["view_seed"]
        assert options.keys() <= {"config", *option_names(script, monkeypatch)}


def test_a_training_that_fails_names_its_log(tables, make_args, monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "run_script", lambda *_: 1)
    row = tables.TABLES["heads"]["mlp"]
    with pytest.raises(RuntimeError, match="training failed: .*log.txt says why"):
        tables.train(row, 0, make_args("heads"), {"localizer": {}})


def test_what_is_trained_is_not_trained_again(tables, make_args, monkeypatch, tmp_path):
    row = tables.TABLES["heads"]["mlp"]
    folder = tmp_path / "localizer-head-mlp-seed-0"
    folder.mkdir()
    (folder / "processor_config.json").write_text("{}")
    monkeypatch.setattr(tables, "run_script", lambda *_: pytest.fail("trained"))
    assert tables.train(row, 0, make_args("heads"), {}) == folder


def samples_of(system, localizer, distance):
    """Twenty photos with two points each, all found equally well."""
    columns = {
        "image_id": np.repeat([f"{number}.jpg" for number in range(20)], 2),
        "system": system,
        "localizer": localizer,
        "distance": distance,
    }
    return pd.DataFrame(columns)


def test_rows_average_over_seeds_and_are_compared(tables, make_args):
    trained = {}
    samples = []
    distances = {
        "Gaussian mask": [0.01, 0.15],
        "predicted mask": [0.3, 0.3],
        "no mask": [0.15] * 2,
    }
    for name, distance_of_seed in distances.items():
        trained[name] = []
        for seed, distance in enumerate(distance_of_seed):
            folder = Path(f"{name}-seed-{seed}")
            trained[name].append(folder)
            samples.append(samples_of(folder.name, "judge", distance))
    rows = tables.measure(make_args("masks"), trained, pd.concat(samples))
    assert rows["Gaussian mask"]["mpck_of_seeds"] == [100, 50]
    assert rows["Gaussian mask"]["mpck"] == 75
    assert rows["Gaussian mask"]["pck@0.05"] == 50
    assert "versus" not in rows["Gaussian mask"]
    assert rows["no mask"]["versus"]["row"] == "Gaussian mask"
    assert rows["no mask"]["versus"]["difference"] == -25
    assert rows["predicted mask"]["mpck"] == 0


def test_texts_of_the_dataset_are_rows_too(tables, make_args):
    systems = {
        "ground truth, full": 0.01,
        "ground truth, terse": 0.15,
        "ground truth, caption": 0.3,
    }
    systems |= {"gaussian-seed-0": 0.15, "predicted-seed-0": 0.3}
    samples = [
        samples_of(name, "judge", distance) for name, distance in systems.items()
    ]
    trained = {
        "Talking Points": [Path("gaussian-seed-0")],
        "region captioner": [Path("predicted-seed-0")],
    }
    rows = tables.measure(make_args("main", seeds=[0]), trained, pd.concat(samples))
    found = {name: row["mpck"] for name, row in rows.items()}
    assert found == {
        "ground-truth text": 100,
        "Talking Points": 50,
        "region captioner": 0,
        "terse text": 50,
        "caption of the object": 0,
    }


def test_the_table_is_written_and_printed(tables, tmp_path, monkeypatch, capsys):
    """Two localizers, each judged on the texts of the dataset."""
    asked = []

    def evaluate(options):
        asked.append(options)
        samples = []
        for number, localizer in enumerate(options.localizers):
            samples.append(
                samples_of("ground truth, full", Path(localizer).name, 0.3 * number)
            )
        Path(options.output).mkdir()
        pd.concat(samples).to_parquet(Path(options.output) / "samples.parquet")
        return {"photos": 20, "points": 40}

    monkeypatch.setattr(tables, "run_script", lambda *_: 0)
    monkeypatch.setattr(tables, "evaluate_descriptions", evaluate)
    words = [
        "paper_tables.py",
        "--table",
        "heads",
        "--data_dir",
        "DATA",
        "--seeds",
        "0",
    ]
    monkeypatch.setattr("sys.argv", [*words, "--output_dir", str(tmp_path)])
    tables.main()
    [options] = asked
    names = [Path(folder).name for folder in options.localizers]
    assert names == ["localizer-head-heatmap-seed-0", "localizer-head-mlp-seed-0"]
    assert options.descriptions == ["ground-truth"]
    result = json.loads((tmp_path / "heads.json").read_text())
    assert result["rows"]["mlp"]["versus"]["difference"] == -100
    printed = capsys.readouterr().out
    assert "test split (by photo): 20 photos, 40 points, 1 seeds" in printed
    assert "| heatmap | 100.0 [100.0, 100.0] | 100.0 | 100.0 | 100.0 | - |" in printed
    assert (
        "| mlp | 0.0 [0.0, 0.0] | 0.0 | 0.0 | 0.0 | -100.0 [-100.0, -100.0], p"
        in printed
    )


def test_descriptors_are_judged_by_the_embedded_localizer(
    tables, make_args, monkeypatch, tmp_path
):
    asked = []

    def evaluate(options):
        asked.append(options)
        Path(options.output).mkdir()
        samples_of("a", "b", 0.1).to_parquet(Path(options.output) / "samples.parquet")
        return {}

    monkeypatch.setattr(tables, "evaluate_descriptions", evaluate)
    trained = {"Talking Points": [tmp_path / "a"], "region captioner": [tmp_path / "b"]}
    tables.evaluate(make_args("main"), trained)
    [options] = asked
    assert options.localizers == [MINI_LOCALIZER]
    assert options.styles == ["full", "terse", "caption"]
    specs = [f"point-descriptor:{tmp_path / name}" for name in "ab"]
    assert options.descriptions == ["ground-truth", *specs]
