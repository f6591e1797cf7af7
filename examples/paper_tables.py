"""The paper's tables at mini size: trains what each row needs, with equal steps and samples for all, and measures it.

    python examples/paper_tables.py --table main --data_dir DATA/animalpose_voc_256 --output_dir runs/tables

`main`: ground-truth text, Talking Points, a region captioner (the mask predicted, and supervised by the object's box),
terse text and a caption of the object. `masks`: descriptor with the Gaussian, the predicted and no mask. `llm`:
localizer with a pretrained language model, frozen and adapted by LoRA. `heads`: localizer with the two heads.
Trainings are resumed where they were cut off and serve all tables; descriptors are judged by the embedded localizer,
which never saw them.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
)

from hf_talking_points import MINI_LOCALIZER
from hf_talking_points.evaluation.protocol import (
    EvaluationOptions,
    evaluate_descriptions,
)
from hf_talking_points.evaluation.report import difference, p_value, table_row
from hf_talking_points.metrics import clustered_interval, mpck_values, paired_difference
from hf_talking_points.offline import smollm2_checkpoint
from hf_talking_points.options import read_options
from hf_talking_points.processes import run_script

EXAMPLES = Path(__file__).parent
SCRIPTS = {
    "descriptor": "train_descriptor",
    "localizer": "train_localizer",
    "localizer_llm": "train_localizer",
}


@dataclass
class GroundTruth:
    """A row of a table: texts of the dataset, through the embedded localizer."""

    style: str


@dataclass
class Training:
    """A row of a table: what is trained (a key of `SCRIPTS`) and its options beside those of all rows."""

    kind: str
    changes: dict[str, object]


TABLES: dict[str, dict[str, GroundTruth | Training]] = {
    "main": {
        "ground-truth text": GroundTruth("full"),
        "Talking Points": Training("descriptor", {"point_mask": "gaussian"}),
        "region captioner": Training("descriptor", {"point_mask": "predicted"}),
        "terse text": GroundTruth("terse"),
        "caption of the object": GroundTruth("caption"),
    },
    "masks": {
        "Gaussian mask": Training("descriptor", {"point_mask": "gaussian"}),
        "predicted mask": Training("descriptor", {"point_mask": "predicted"}),
        "no mask": Training("descriptor", {"point_mask": "none"}),
    },
    "llm": {
        "language model with LoRA": Training("localizer_llm", {"lora_rank": 16}),
        "language model frozen": Training(
            "localizer_llm", {"freeze_language_model": True}
        ),
    },
    "heads": {
        "heatmap": Training("localizer", {"head": "heatmap"}),
        "mlp": Training("localizer", {"head": "mlp"}),
    },
}
# what the other rows of a table are compared with
REFERENCES = {
    "main": "Talking Points",
    "masks": "Gaussian mask",
    "llm": "language model with LoRA",
    "heads": "heatmap",
}


@dataclass
class TableArguments:
    table: str = field(metadata={"help": f"one of {', '.join(TABLES)}"})
    data_dir: list[str] = field(
        metadata={
            "help": "folders with an objects.jsonl, or built datasets (folder or Hub id)"
        }
    )
    output_dir: str = field(
        default="runs/tables",
        metadata={"help": "trained models, the evaluation's cache, tables as JSON"},
    )
    config: str = field(
        default=str(EXAMPLES / "paper_tables.yaml"),
        metadata={"help": "what all rows have in common"},
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    split: str = field(default="test", metadata={"help": "test, validation or train"})
    max_photos: int | None = field(
        default=None,
        metadata={"help": "the first photos of the split; all of them if not given"},
    )
    num_proc: int = field(
        default=1, metadata={"help": "trainings side by side, of one thread each"}
    )

    def __post_init__(self) -> None:
        if self.table not in TABLES:
            raise ValueError(
                f"table must be one of {tuple(TABLES)}, got {self.table!r}"
            )


def save_backbone(folder: Path) -> None:
    """Saves the embedded pair's backbone."""
    if not folder.is_dir():
        localizer = AutoModel.from_pretrained(MINI_LOCALIZER)
        localizer.model.backbone.save_pretrained(folder)


def save_first_layers(layers: int, folder: Path) -> None:
    """Saves the first layers of SmolLM2-135M."""
    if not folder.is_dir():
        whole = smollm2_checkpoint(folder.parent / "smollm2")
        AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            whole, num_hidden_layers=layers, dtype="float32"
        )
        model.save_pretrained(folder)


def load_options(args: TableArguments) -> dict[str, dict]:
    """Kind of training -> what its rows have in common; saves the checkpoints that they start from."""
    common = read_options(args.config)
    backbone = Path(args.output_dir) / "backbone"
    save_backbone(backbone)
    for options in common.values():
        options["backbone"] = backbone
    common["descriptor"]["localizer"] = MINI_LOCALIZER
    if args.table == "llm":
        layers = common["localizer_llm"].pop("llm_layers")
        language_model = Path(args.output_dir) / f"smollm2-{layers}-layers"
        save_first_layers(layers, language_model)
        common["localizer_llm"]["text"] = language_model
    return common


def command_line_options(options: dict[str, object]) -> list[str]:
    words = []
    for name, value in options.items():
        words.append(f"--{name}")
        values = value if isinstance(value, list) else [value]
        words += [str(single) for single in values]
    return words


def train(
    row: Training, seed: int, args: TableArguments, common: dict[str, dict]
) -> Path:
    """Folder of a trained model; trains it, or goes on with it, where there is none yet."""
    changed = "-".join(f"{name}-{value}" for name, value in row.changes.items())
    folder = Path(args.output_dir) / f"{row.kind}-{changed}-seed-{seed}"
    if (folder / "processor_config.json").is_file():
        return folder
    options = {
        "config": EXAMPLES / f"{SCRIPTS[row.kind]}.yaml",
        "data_dir": args.data_dir,
        **common[row.kind],
        **row.changes,
        "seed": seed,
        "view_seed": seed,
        "output_dir": folder,
        "feature_cache": "runs/features",
    }
    script = EXAMPLES / f"{SCRIPTS[row.kind]}.py"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"training {folder}", flush=True)
    log = folder / "log.txt"
    if run_script(script, command_line_options(options), log):
        raise RuntimeError(f"training failed: {log} says why")
    return folder


def train_rows(args: TableArguments, common: dict[str, dict]) -> dict[str, list[Path]]:
    """Row of the table -> folders of its trained models, one for each seed."""
    jobs = {}
    with ThreadPoolExecutor(args.num_proc) as pool:
        for seed in args.seeds:
            for name, row in TABLES[args.table].items():
                if isinstance(row, Training):
                    job = pool.submit(train, row, seed, args, common)
                    jobs.setdefault(name, []).append(job)
        return {
            name: [job.result() for job in row_jobs] for name, row_jobs in jobs.items()
        }


def folders_of(
    kind: str, rows: dict[str, GroundTruth | Training], trained: dict[str, list[Path]]
) -> list[str]:
    """Folders of all trained descriptors or localizers, seed after seed."""
    names = [name for name in trained if rows[name].kind.startswith(kind)]
    folders = []
    for folders_of_seed in zip(*(trained[name] for name in names)):
        folders += [str(folder) for folder in folders_of_seed]
    return folders


def evaluate(
    args: TableArguments, trained: dict[str, list[Path]]
) -> tuple[dict, pd.DataFrame]:
    """The protocol over all rows: its report, and a row for each system, localizer and point."""
    rows = TABLES[args.table]
    descriptors = folders_of("descriptor", rows, trained)
    localizers = folders_of("localizer", rows, trained)
    styles = ["full"]
    for row in rows.values():
        if isinstance(row, GroundTruth) and row.style not in styles:
            styles.append(row.style)
    options = EvaluationOptions(
        dataset=args.data_dir,
        # one for all tables: they have systems in common
        output=str(Path(args.output_dir) / "evaluation"),
        descriptions=[
            "ground-truth",
            *(f"point-descriptor:{folder}" for folder in descriptors),
        ],
        localizers=localizers or [MINI_LOCALIZER],
        styles=styles,
        split=args.split,
        controls=False,
        max_photos=args.max_photos,
    )
    report = evaluate_descriptions(options)
    return report, pd.read_parquet(Path(options.output) / "samples.parquet")


def samples_of(
    row: GroundTruth | Training, folders: list[Path], samples: pd.DataFrame
) -> list[pd.DataFrame]:
    """What the protocol measured of a row, for each seed."""
    if isinstance(row, GroundTruth):
        return [samples[samples.system == f"ground truth, {row.style}"]]
    runs = []
    for folder in folders:
        is_of_run = (samples.localizer == folder.name) | (samples.system == folder.name)
        runs.append(samples[is_of_run])
    return runs


def measure(
    args: TableArguments, trained: dict[str, list[Path]], samples: pd.DataFrame
) -> dict[str, dict]:
    """Row of the table -> its numbers."""
    numbers = {}
    mpck_of_row = {}  # mean over the seeds, of each point
    images = None  # of each point
    for name, row in TABLES[args.table].items():
        runs = samples_of(row, trained.get(name, []), samples)
        distances = np.stack(
            [run.distance.to_numpy() for run in runs]
        )  # (seeds, points)
        mpck = mpck_values(distances)
        mpck_of_row[name] = mpck.mean(axis=0)
        images = runs[0].image_id
        numbers[name] = {
            "mpck": float(mpck_of_row[name].mean()),
            "mpck_ci95": clustered_interval(mpck_of_row[name], images),
            "mpck_of_seeds": mpck.mean(axis=1).tolist(),
            "pck@0.05": float(100 * (distances < 0.05).mean()),
            "pck@0.02": float(100 * (distances < 0.02).mean()),
        }
    reference = REFERENCES[args.table]
    for name in numbers:
        if name != reference:
            comparison = paired_difference(
                mpck_of_row[name], mpck_of_row[reference], images
            )
            numbers[name]["versus"] = {"row": reference, **comparison}
    return numbers


def markdown(result: dict) -> str:
    """A table of this script as Markdown."""
    lines = [
        f"{result['split']} split (by photo): {result['photos']} photos, {result['points']} points, "
        f"{len(result['seeds'])} seeds; in percent, [95 % interval, bootstrap over photos of the seeds' mean].",
        "",
        "| row | mPCK | of each seed | PCK@0.05 | PCK@0.02 | difference in mPCK |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        low, high = row["mpck_ci95"]
        versus = row.get("versus")
        cells = [
            name,
            f"{row['mpck']:.1f} [{low:.1f}, {high:.1f}]",
            ", ".join(f"{value:.1f}" for value in row["mpck_of_seeds"]),
            f"{row['pck@0.05']:.1f}",
            f"{row['pck@0.02']:.1f}",
            f"{difference(versus)}, p {p_value(versus)}" if versus else "-",
        ]
        lines.append(table_row(cells))
    return "\n".join(lines)


def main() -> None:
    (args,) = HfArgumentParser(TableArguments).parse_args_into_dataclasses()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the trainings, several at a time
    common = load_options(args)
    trained = train_rows(args, common)
    report, samples = evaluate(args, trained)

    training = {}
    for kind, options in common.items():
        training[kind] = {name: str(value) for name, value in options.items()}
    result = {
        "table": args.table,
        "split": args.split,
        "photos": report["photos"],
        "points": report["points"],
        "seeds": args.seeds,
        "training": training,
        "rows": measure(args, trained, samples),
    }
    file = Path(args.output_dir) / f"{args.table}.json"
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"\n{markdown(result)}")


if __name__ == "__main__":
    main()
