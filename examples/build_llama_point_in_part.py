"""Builds a dataset of points and their descriptions from annotated photos.

    python examples/build_llama_point_in_part.py --config examples/build_llama_point_in_part.yaml \\
        --root DATA --output_dir points

The YAML names the sources, what becomes of them and the teacher that writes the texts. Killed at any moment and
started again, a build goes on where it was. The result loads with `datasets.load_dataset("points")`.
"""

from dataclasses import dataclass, field

from transformers import HfArgumentParser

from hf_talking_points.data.build_config import read_build_config
from hf_talking_points.data.builder import build_dataset, push_built


@dataclass
class Arguments:
    config: str = field(metadata={"help": "YAML file: sources, options, teacher"})
    output_dir: str = field(metadata={"help": "folder of the dataset"})
    root: str = field(
        default=".", metadata={"help": "what the paths of the sources are relative to"}
    )
    num_proc: int = field(
        default=1, metadata={"help": "processes that build side by side"}
    )
    strict: bool = field(
        default=False,
        metadata={"help": "stop at the first photo or annotation that cannot be used"},
    )
    push_to_hub: str | None = field(
        default=None, metadata={"help": "repo id to push the result to"}
    )


def main() -> None:
    parser = HfArgumentParser(Arguments)
    args = parser.parse_args_into_dataclasses()[0]
    config = read_build_config(args.config, args.root)
    dataset = build_dataset(
        config.sources,
        args.output_dir,
        config.options,
        teacher=config.teacher,
        num_proc=args.num_proc,
        strict=args.strict,
    )
    print(dataset)
    if args.push_to_hub:
        push_built(args.output_dir, args.push_to_hub)


if __name__ == "__main__":
    main()
