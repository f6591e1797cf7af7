"""Builds a dataset of points and their descriptions from annotated photos.

    python examples/build_llama_point_in_part.py --config examples/build_llama_point_in_part.yaml --root DATA --output_dir points

The YAML names the sources, what becomes of them and the teacher that writes the texts. Killed at any moment and started again, a build
goes on where it was. The result loads with `datasets.load_dataset("points")`.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml
from transformers import HfArgumentParser

from hf_talking_points.data import sources, teachers
from hf_talking_points.data.builder import BuildOptions, build_dataset, push_built


@dataclass
class Arguments:
    config: str = field(metadata={"help": "YAML file: sources, options, teacher"})
    output_dir: str = field(metadata={"help": "folder of the dataset"})
    root: str = field(
        default=".", metadata={"help": "what the paths of the sources are relative to"}
    )
    num_proc: int = field(default=1, metadata={"help": "processes that build side by side"})
    strict: bool = field(
        default=False,
        metadata={"help": "stop at the first photo or annotation that cannot be used"},
    )
    push_to_hub: str | None = field(
        default=None, metadata={"help": "repo id to push the result to"}
    )


def main():
    args = HfArgumentParser(Arguments).parse_args_into_dataclasses()[0]
    config = yaml.safe_load(Path(args.config).read_text(encoding="utf-8"))
    readers = []
    for source in config["sources"]:
        reader = getattr(sources, source.pop("reader"))
        paths = {
            name: Path(args.root) / source.pop(name)
            for name in ("folder", "annotations", "images")
            if name in source
        }
        readers.append(partial(reader, **paths, **source))
    made = config.get("teacher", {"name": "RuleTeacher"})
    teacher = getattr(teachers, made.pop("name"))(**made)
    dataset = build_dataset(
        readers,
        args.output_dir,
        BuildOptions(**config["options"]),
        teacher,
        args.num_proc,
        args.strict,
    )
    print(dataset)
    if args.push_to_hub:
        push_built(args.output_dir, args.push_to_hub)


if __name__ == "__main__":
    main()
