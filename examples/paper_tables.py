"""The paper's tables at mini size: trains what each row needs, with the same steps and samples for all, and measures it.

    python examples/paper_tables.py --table main --data_dir DATA/animalpose_voc_256 --output_dir runs/tables

`main`: ground-truth text, Talking Points, a region captioner (the mask predicted, and supervised by the object's box), terse text and a
caption of the object. `masks`: descriptor with the Gaussian, the predicted and no mask. `llm`: localizer with a pretrained language model,
frozen and adapted by LoRA. `heads`: localizer with the two heads. Trainings are resumed where they were cut off and serve all tables;
descriptors are judged by the embedded localizer, which never saw them.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, HfArgumentParser

from hf_talking_points import MINI_LOCALIZER
from hf_talking_points.metrics import clustered_interval, mpck_values, paired_difference
from hf_talking_points.evaluation.protocol import EvaluationOptions, evaluate_descriptions
from hf_talking_points.evaluation.report import p_value
from hf_talking_points.offline import smollm2_checkpoint

EXAMPLES = Path(__file__).parent
# rows of each table: what is trained and how it differs, or a style of the ground truth
TABLES = {
    "main": {
        "ground-truth text": "full",
        "Talking Points": ("descriptor", {"point_mask": "gaussian"}),
        "region captioner": ("descriptor", {"point_mask": "predicted"}),
        "terse text": "terse",
        "caption of the object": "caption",
    },
    "masks": {
        "Gaussian mask": ("descriptor", {"point_mask": "gaussian"}),
        "predicted mask": ("descriptor", {"point_mask": "predicted"}),
        "no mask": ("descriptor", {"point_mask": "none"}),
    },
    "llm": {
        "language model with LoRA": ("localizer_llm", {"lora_rank": 16}),
        "language model frozen": ("localizer_llm", {"freeze_language_model": True}),
    },
    "heads": {
        "heatmap": ("localizer", {"head": "heatmap"}),
        "mlp": ("localizer", {"head": "mlp"}),
    },
}


@dataclass
class TableArguments:
    table: str = field(metadata={"help": f"one of {', '.join(TABLES)}"})
    data_dir: list[str] = field(
        metadata={"help": "folders with an objects.jsonl, or built datasets (folder or Hub id)"}
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
        default=None, metadata={"help": "the first photos of the split; all of them if not given"}
    )
    num_proc: int = field(
        default=1, metadata={"help": "trainings side by side, of one thread each"}
    )

    def __post_init__(self):
        if self.table not in TABLES:
            raise ValueError(f"table must be one of {tuple(TABLES)}, got {self.table!r}")


def train(kind, fields, seed, args, common):
    """Folder of a trained model; trains it, or goes on with it, where there is none yet."""
    changed = "-".join(f"{name}-{value}" for name, value in fields.items())
    folder = Path(args.output_dir) / f"{kind}-{changed}-seed-{seed}"
    if (folder / "processor_config.json").is_file():
        return folder
    script = f"train_{kind.removesuffix('_llm')}"
    options = {
        **common[kind],
        **fields,
        "seed": seed,
        "view_seed": seed,
        "output_dir": folder,
        "feature_cache": "runs/features",
    }
    command = [
        sys.executable,
        str(EXAMPLES / f"{script}.py"),
        "--config",
        str(EXAMPLES / f"{script}.yaml"),
        "--data_dir",
        *args.data_dir,
    ]
    command += [
        part
        for name, value in options.items()
        for part in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "a") as log:
        print(f"training {folder}", flush=True)
        subprocess.run(
            command,
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    return folder


def prepare(args, common):
    """The embedded pair's backbone, and the first layers of SmolLM2 where a row needs them."""
    backbone = Path(args.output_dir) / "backbone"
    if not backbone.is_dir():
        AutoModel.from_pretrained(MINI_LOCALIZER).model.backbone.save_pretrained(backbone)
    for options in common.values():
        options["backbone"] = backbone
    common["descriptor"]["localizer"] = MINI_LOCALIZER
    if args.table == "llm":
        layers = common["localizer_llm"].pop("llm_layers")
        text = Path(args.output_dir) / f"smollm2-{layers}-layers"
        if not text.is_dir():
            whole = smollm2_checkpoint(Path(args.output_dir) / "smollm2")
            AutoTokenizer.from_pretrained(whole).save_pretrained(text)
            AutoModelForCausalLM.from_pretrained(
                whole, num_hidden_layers=layers, dtype="float32"
            ).save_pretrained(text)
        common["localizer_llm"]["text"] = text


def main():
    args = HfArgumentParser(TableArguments).parse_args_into_dataclasses()[0]
    rows, common = TABLES[args.table], yaml.safe_load(Path(args.config).read_text())
    prepare(args, common)
    wanted = [
        (name, *row, seed)
        for seed in args.seeds
        for name, row in rows.items()
        if not isinstance(row, str)
    ]
    with ThreadPoolExecutor(args.num_proc) as pool:
        folders = list(pool.map(lambda run: train(*run[1:], args, common), wanted))
    trained = {(name, seed): folder for (name, *_, seed), folder in zip(wanted, folders)}
    localizers = [str(trained[key]) for key in trained if "localizer" in trained[key].name] or [
        MINI_LOCALIZER
    ]
    descriptors = [
        f"point-descriptor:{trained[key]}" for key in trained if "descriptor" in trained[key].name
    ]
    options = EvaluationOptions(
        dataset=args.data_dir,
        output=str(
            Path(args.output_dir) / "evaluation"
        ),  # one for all tables: they have systems in common
        descriptions=["ground-truth", *descriptors],
        localizers=localizers,
        styles=list(
            dict.fromkeys(["full", *(row for row in rows.values() if isinstance(row, str))])
        ),
        split=args.split,
        controls=False,
        max_photos=args.max_photos,
    )
    report = evaluate_descriptions(options)
    samples = pd.read_parquet(Path(options.output) / "samples.parquet")
    values, table = {}, {}
    for name, row in rows.items():
        if isinstance(row, str):
            runs = [samples[samples.system == f"ground truth, {row}"]]
        else:
            keys = [trained[name, seed].name for seed in args.seeds]
            runs = [samples[(samples.localizer == key) | (samples.system == key)] for key in keys]
        distances = np.stack([run.distance.to_numpy() for run in runs])
        values[name], images = mpck_values(distances).mean(0), runs[0].image_id
        table[name] = {
            "mpck": float(values[name].mean()),
            "mpck_ci95": clustered_interval(values[name], images),
            "mpck_of_seeds": mpck_values(distances).mean(1).tolist(),
            "pck@0.05": float(100 * (distances < 0.05).mean()),
            "pck@0.02": float(100 * (distances < 0.02).mean()),
        }
    first = next(iter(rows)) if args.table != "main" else "Talking Points"
    for name in rows:
        if name != first:
            table[name]["versus"] = {
                "row": first,
                **paired_difference(values[name], values[first], images),
            }
    result = {
        "table": args.table,
        "split": args.split,
        "photos": report["photos"],
        "points": report["points"],
        "seeds": args.seeds,
    }
    result |= {
        "training": {kind: {k: str(v) for k, v in common[kind].items()} for kind in common},
        "rows": table,
    }
    Path(args.output_dir, f"{args.table}.json").write_text(
        json.dumps(result, indent=2) + "\n", encoding="utf-8"
    )
    print(f"\n{markdown(result)}")


def markdown(result):
    """A table of this script as Markdown."""
    lines = [
        f"{result['split']} split (by photo): {result['photos']} photos, {result['points']} points, {len(result['seeds'])} seeds; in "
        "percent, [95 % interval, bootstrap over photos of the seeds' mean].",
        "",
        "| row | mPCK | of each seed | PCK@0.05 | PCK@0.02 | difference in mPCK |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        low, high = row["mpck_ci95"]
        seeds = ", ".join(f"{v:.1f}" for v in row["mpck_of_seeds"])
        other = row.get("versus")
        versus = (
            f"{other['difference']:+.1f} [{other['ci95'][0]:+.1f}, {other['ci95'][1]:+.1f}], p {p_value(other)}"
            if other
            else "-"
        )
        lines.append(
            f"| {name} | {row['mpck']:.1f} [{low:.1f}, {high:.1f}] | {seeds} | {row['pck@0.05']:.1f} | {row['pck@0.02']:.1f} | {versus} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
